"""Who is who: identify, both halves, over one given connection (libp2p specs, identify).

The library asks once per peer and forgets the answer's agent; here the answer of this very connection counts. What it
answers names TCP addresses only, and confuses connections to one peer.
"""

from collections.abc import Iterable

import trio
from google.protobuf.message import DecodeError
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError
from multiaddr import Multiaddr

from peertunnel.multiaddrs import address_texts
from peertunnel.peers import Identified
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.varint import decode_varint
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

PROTOCOL = "/ipfs/id/1.0.0"
VERSION = "ipfs/0.1.0"  # of the family of protocols, as everybody has it
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


async def answer(stream: MuxedStream, host: BasicHost, agent: str, addresses: Iterable[Multiaddr]) -> None:
    """Tell a peer who we are, and how we see it.

    Args:
        stream: on which it has asked.
        host: has our key and our protocols.
        agent: what we run.
        addresses: where others may reach us, without our peer id.
    """
    record, _ = env_to_send_in_RPC(host)
    message = Identify(
        protocol_version=VERSION,
        agent_version=agent,
        public_key=host.get_public_key().serialize(),
        listen_addrs=[address.to_bytes() for address in addresses],
        observed_addr=stream.muxed_conn.get_transport_addresses()[0].to_bytes(),
        protocols=[str(protocol) for protocol in host.multiselect.handlers if protocol],
        signedPeerRecord=record,
    )
    with trio.move_on_after(TIMEOUT):
        try:
            await stream.write(encode_delimited(message.SerializeToString()))
            await stream.close()
            return
        except MuxedStreamError:
            pass
    stream.abort()
