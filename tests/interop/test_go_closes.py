"""What a Go program has answered before it closes a stream arrives, over QUIC as over TCP: it takes nothing more then."""

import socket
from pathlib import Path

import pytest
import trio

from peertunnel.config import Transports
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.streams import Outcome
from peertunnel.transport.connection import MuxedConnection
from tests.interop.peers import running
from tests.node.pair import PATIENCE, until

CURT = "/portkey/curt/1.0.0"  # answers a first byte with 500, and closes
TIMES = 10
LISTEN = {"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}
SECURITY = {"tcp": "noise", "quic": "quic"}


@pytest.mark.parametrize("kind", ["tcp", "quic"])
async def test_an_answer_before_a_close_arrives(gopeer: Path, kind: Transports) -> None:
    async with (
        running(
            [str(gopeer), "echo-listen", "--listen", LISTEN[kind], "--transport", SECURITY[kind]]
        ) as peer,
        open_host(Identity.ephemeral(), (), kind) as host,
    ):
        ready = await peer.event("ready")
        connection = await host.dial(str(ready["peer_id"]), ready["addresses"], PATIENCE)
        for _ in range(TIMES):
            assert await answer_of(connection) == bytes(500)


async def answer_of(connection: MuxedConnection) -> bytes:
    """Open a tunnel, send more than is read, and return what the client gets."""
    near, far = socket.socketpair()
    near.setblocking(False)
    outcomes: list[Outcome] = []
    answer = b""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(far)) as client:
        (await connection.open_tunnel(CURT)).attach(near, outcomes.append)
        await client.send_all(b"?" * 100)
        with trio.fail_after(PATIENCE):
            while part := await client.receive_some():
                answer += part
    await until(lambda: outcomes)
    return answer
