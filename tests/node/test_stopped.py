"""A peer that reads no further: it may still send, and what it does not take passes for delivered nowhere."""

import socket
from contextlib import suppress

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from peertunnel.streams import End, Outcome
from peertunnel.transport.quic.connection import HELD, QuicConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import streams
from tests.node.pair import PATIENCE, until
from tests.node.test_local_resets import ANSWER, spliced

LARGE = 4 * HELD  # bytes; more than the target's socket takes and we read ahead


def stop(stream: MuxedStream, *, with_end: bool) -> None:
    """Do as quic-go's Close, and quinn's drop of a stream: send an end, and ask for nothing more."""
    connection = stream.muxed_conn
    assert isinstance(connection, QuicConnection)
    if with_end:
        connection._engine.finish(connection.number, stream.stream_id)
    connection._engine.reset(connection.number, stream.stream_id, sending=False)
    connection.flush()


async def read_until_reset(target: trio.SocketStream) -> int:
    """Read until the socket is reset; return how many bytes came before."""
    received = 0
    with trio.fail_after(PATIENCE):
        try:
            while data := await target.receive_some(1024):
                received += len(data)
        except trio.BrokenResourceError:
            return received
    pytest.fail("the socket ended as if that were all")


@pytest.mark.parametrize("size", [0, len(ANSWER), LARGE])
async def test_an_answer_before_a_peers_end_and_stop_arrives(size: int) -> None:
    """And then a reset: so ends what a Rust program has dropped in the middle."""
    async with spliced("quic") as (client, target, outcomes):
        await client.write(bytes(size))
        stop(client, with_end=True)
        if size == LARGE:
            await trio.sleep(0.1)  # nobody takes it for now
            assert not outcomes
        assert await read_until_reset(target) == size
        await until(lambda: outcomes)
        assert [outcome.end for outcome in outcomes] == [End.PEER_RESET]


async def test_an_answer_to_one_who_still_sends_arrives() -> None:
    async with spliced("quic") as (client, target, outcomes), trio.open_nursery() as nursery:

        async def upload() -> None:
            with pytest.raises(trio.BrokenResourceError):  # here it is told of the reset
                while True:
                    await target.send_all(bytes(HELD))

        nursery.start_soon(upload)
        assert await client.read()
        await client.write(ANSWER)
        stop(client, with_end=True)
        await until(lambda: outcomes)
        assert await target.receive_some(LARGE) == ANSWER
        assert [outcome.end for outcome in outcomes] == [End.PEER_RESET]


async def test_who_reads_no_further_may_send_on() -> None:
    async with spliced("quic") as (client, target, outcomes):
        stop(client, with_end=False)
        await target.send_all(b"to nobody")
        await client.write(ANSWER)
        with trio.fail_after(PATIENCE):
            assert await target.receive_some() == ANSWER
        await client.write(ANSWER)
        with trio.fail_after(PATIENCE):
            assert await target.receive_some() == ANSWER
        assert not outcomes
        stop(client, with_end=True)
        assert await read_until_reset(target) == 0


async def send_until_told(client: MuxedStream, outcomes: list[Outcome]) -> None:
    """Send until the tunnel has noticed that its socket takes nothing."""
    with trio.fail_after(PATIENCE), suppress(MuxedStreamReset):
        while not outcomes:
            await client.write(ANSWER)
            await trio.sleep(0.01)


async def test_what_is_to_be_sent_again_is_kept() -> None:
    """As where Rust drops a stream that it has not looked at: it is opened anew."""
    near, far = socket.socketpair()
    near.setblocking(False)
    outcomes: list[Outcome] = []
    async with (
        streams("quic") as (client, server),
        trio.SocketStream(trio.socket.from_stdlib_socket(far)) as target,
    ):
        server.attach(near, outcomes.append, b"")
        await target.send_all(b"first")
        assert await client.read() == b"first"
        stop(client, with_end=False)
        flow = server.muxed_conn._flows[server.stream_id]  # type: ignore[attr-defined]
        await until(lambda: flow.is_stopped)
        await target.send_all(b"second")
        await trio.sleep(0.05)  # for it to be read, wrongly
        stop(client, with_end=True)
        await until(lambda: outcomes)
        assert outcomes[0].replay == b"first" and near.recv(100) == b"second"
        near.close()


async def test_what_a_socket_sends_to_nobody_does_not_hide_its_end() -> None:
    async with spliced("quic") as (client, target, outcomes):
        stop(client, with_end=False)
        await target.send_all(bytes(4 << 20))
        await target.send_eof()
        await client.write(ANSWER)
        with trio.fail_after(PATIENCE):
            assert await target.receive_some() == ANSWER
        await client.close_write()
        await until(lambda: outcomes)


async def test_where_neither_end_takes_anything_the_tunnel_ends() -> None:
    async with spliced("quic") as (client, target, outcomes):
        stop(client, with_end=False)
        await client.write(ANSWER)
        assert await target.receive_some() == ANSWER
        await target.aclose()
        await send_until_told(client, outcomes)
        assert [outcome.end for outcome in outcomes] == [End.LOCAL_RESET]


async def test_an_end_and_later_a_stop_are_a_reset() -> None:
    async with spliced("quic") as (client, target, outcomes):
        connection = client.muxed_conn
        assert isinstance(connection, QuicConnection)
        connection._engine.finish(connection.number, client.stream_id)
        connection.flush()
        assert await target.receive_some() == b""
        assert not outcomes
        stop(client, with_end=False)
        await until(lambda: outcomes)
        assert [outcome.end for outcome in outcomes] == [End.PEER_RESET]
