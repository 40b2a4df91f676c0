"""A peer that reads no further: it may still send, and what it does not take passes for delivered nowhere."""

from contextlib import suppress

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from peertunnel.streams import End, Outcome
from peertunnel.transport.quic.connection import HELD, QuicConnection
from peertunnel.transport.stream import MuxedStream
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
            while data := await target.receive_some():
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
        received = 0
        while size == LARGE and not outcomes:  # until the sockets hold all that is left
            received += len(await target.receive_some(1024))
        assert received + await read_until_reset(target) == size
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
