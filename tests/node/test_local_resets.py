"""A local socket that is reset: what it had sent before goes through the tunnel first, and then the reset."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

from peertunnel.config import Transports
from peertunnel.streams import End, Outcome
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import streams
from tests.node.pair import PATIENCE, reset, until

SMALL = 16 << 10  # bytes that a socket takes
ANSWER = bytes(range(256)) * 32


@asynccontextmanager
async def spliced(
    kind: Transports = "tcp",
) -> AsyncIterator[tuple[MuxedStream, trio.SocketStream, list[Outcome]]]:
    """Yield a stream, the socket at the other end of its tunnel, and what became of the tunnel."""
    outcomes: list[Outcome] = []
    async with streams(kind) as (client, server), attached(server, outcomes) as target:
        yield client, target, outcomes


@asynccontextmanager
async def attached(stream: MuxedStream, outcomes: list[Outcome]) -> AsyncIterator[trio.SocketStream]:
    """Attach a stream to a socket that takes little, and yield that one's other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    near.setblocking(False)
    stream.attach(near, outcomes.append)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(far)) as target:
        yield target


@pytest.mark.parametrize("kind", ["tcp", "quic"])
async def test_an_answer_before_a_reset_arrives(kind: Transports) -> None:
    """As of a server that answers before it has read all, and closes: the system resets what was not read."""
    async with spliced(kind) as (client, target, outcomes):
        upload = bytes(8 * SMALL)
        await client.write(upload)
        assert await target.receive_some(10)
        await trio.sleep(0.1)  # until both sockets are full
        await target.send_all(ANSWER)
        await target.aclose()
        received = b""
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            while True:
                received += await client.read()
        assert received == ANSWER
        assert [outcome.end for outcome in outcomes] == [End.LOCAL_RESET]


async def test_a_reset_after_an_end_is_passed_on() -> None:
    async with spliced() as (client, target, outcomes):
        await target.send_eof()
        with pytest.raises(MuxedStreamEOF):
            await client.read()
        reset(target)
        await until(lambda: outcomes)
        assert [outcome.end for outcome in outcomes] == [End.LOCAL_RESET]
        await until(lambda: client.end is not None)


@pytest.mark.parametrize("kind", ["tcp", "quic"])
@pytest.mark.parametrize("who", ["the target", "we"])
async def test_what_both_have_ended_can_be_cut_while_the_socket_is_behind(kind: Transports, who: str) -> None:
    outcomes: list[Outcome] = []
    async with streams(kind) as (client, server), attached(server, outcomes) as target:
        await target.send_eof()
        await client.write(bytes(8 * SMALL))
        await client.close_write()
        await until(lambda: server.is_closed)
        assert not outcomes  # the target has yet to take most of it
        if who == "the target":
            reset(target)
        else:
            server.abort()
        await until(lambda: outcomes)
        assert [outcome.end for outcome in outcomes] == [End.LOCAL_RESET]
