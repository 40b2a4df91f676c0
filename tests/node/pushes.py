"""What one host tells another of itself unasked (libp2p specs, identify/push)."""

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from peertunnel.host import Host
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.identify import PUSH, Identify
from tests.node.pair import PATIENCE


async def push(server: Host, client: Host, data: bytes) -> None:
    """Push to a client, and wait until it has been taken."""
    (connection,) = server.connections(client.peer_id)
    stream = await connection.open_tunnel(PUSH)
    await stream.write(data)
    await stream.close_write()
    with pytest.raises(MuxedStreamEOF), trio.fail_after(PATIENCE):
        await stream.read()


def news(server: Host, *protocols: str) -> bytes:
    return encode_delimited(Identify(protocols=frozenset(protocols)).encode(server.peer_id))
