"""Asking a peer what it is: the request half of identify, over one given connection.

The library asks once per peer and forgets the answer's agent; here the answer of this very connection counts.
Source: libp2p identify spec, /ipfs/id/1.0.0.
"""

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.multiaddrs import address_texts
from peertunnel.peers import Identified
from peertunnel.protocols.varint import decode_varint
from peertunnel.transport.connection import MuxedConnection

PROTOCOL = "/ipfs/id/1.0.0"
TIMEOUT = 10.0  # seconds; go-libp2p gives it 5 s per stream, rust-libp2p 60 s
MAX_ADDRESSES = 64  # of a peer that are looked at
MAX_MESSAGE = 64 * 1024  # bytes; go-libp2p reads 8 KiB at most, twice


async def request(connection: MuxedConnection) -> Identify:
    """Return what the peer reports of itself; an empty message if it does not in time, or not in this form."""
    data = bytearray()
    with trio.move_on_after(TIMEOUT):
        try:
            stream = await connection.open_tunnel(PROTOCOL, is_urgent=True)
            try:
                stream.finish()
                while len(data) < MAX_MESSAGE:
                    data += await stream.read()
            finally:
                stream.abort()  # whoever tells no end would keep it open
        except MuxedStreamEOF:
            pass
        except (MuxedStreamError, MuxedConnError):
            return Identify()
    prefix = decode_varint(bytes(data))
    try:
        return Identify.FromString(bytes(data[prefix[1] :])) if prefix else Identify()
    except DecodeError:
        return Identify()


async def identified(connection: MuxedConnection) -> Identified:
    """Return what the peer reports of itself, in our own words; nothing if it does not."""
    answer = await request(connection)
    addresses = address_texts(answer.listen_addrs[:MAX_ADDRESSES], str(connection.peer_id))
    return Identified(frozenset(answer.protocols), addresses)
