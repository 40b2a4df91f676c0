"""Asking a peer what it is: the request half of identify, over one given connection.

The library asks once per peer and forgets the answer's agent; here the answer of this very connection counts.
Source: libp2p identify spec, /ipfs/id/1.0.0.
"""

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.protocols.varint import decode_varint
from peertunnel.transport.yamux import MuxedConnection

PROTOCOL = "/ipfs/id/1.0.0"
TIMEOUT = 10.0  # seconds; go-libp2p gives it 5 s per stream, rust-libp2p 60 s
MAX_MESSAGE = 64 * 1024  # bytes; go-libp2p reads 8 KiB at most, twice


async def agent_of(connection: MuxedConnection) -> str:
    """Return the agent version that the peer reports, "" if it does not say in time."""
    data = bytearray()
    with trio.move_on_after(TIMEOUT):
        try:
            stream = await connection.open_tunnel(PROTOCOL)
            stream.finish()
            while len(data) < MAX_MESSAGE:
                data += await stream.read()
        except MuxedStreamEOF:
            pass
        except (MuxedStreamError, MuxedConnError):
            return ""
    prefix = decode_varint(bytes(data))
    try:
        return str(Identify.FromString(bytes(data[prefix[1] :])).agent_version) if prefix else ""
    except DecodeError:
        return ""
