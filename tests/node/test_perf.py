"""How fast a connection is: as much is sent as was asked for, but not to everybody, and not without bounds."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError

from peertunnel.config import Transports
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.perf import MAX_SIZE, PROTOCOL, Perf, measure
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import hosts
from tests.node.pair import PATIENCE, until
from tests.tools import need_quic

KINDS: tuple[Transports, ...] = ("tcp", "quic")


@asynccontextmanager
async def measured(
    kind: Transports = "tcp", admits: Callable[[MuxedConnection], bool] = lambda connection: True
) -> AsyncIterator[MuxedConnection]:
    """Connect to a host that takes part."""
    if kind == "quic":
        need_quic()
    async with hosts(kind) as (server, _, connection):
        server.serve(PROTOCOL, Perf(admits, server.nursery).accept)
        yield connection


async def answer(stream: MuxedStream) -> bytes:
    """Read to the end."""
    data = b""
    with trio.fail_after(PATIENCE):
        try:
            while True:
                data += await stream.read()
        except MuxedStreamEOF:
            return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sent", "received"), [(0, MAX_SIZE), (MAX_SIZE, 0), (1000, 1000)])
async def test_bytes_go_as_asked(kind: Transports, sent: int, received: int) -> None:
    async with measured(kind) as connection:
        rate = await measure(connection, sent=sent, received=received, within=PATIENCE)
        assert rate is not None and rate > (sent + received) / PATIENCE
        await until(lambda: not connection.has_streams)


async def test_the_form_is_that_of_the_spec() -> None:
    async with measured() as connection:
        stream = await connection.open_tunnel(PROTOCOL)
        await stream.write((70_000).to_bytes(8, "big") + b"what we like")
        await stream.close_write()
        assert len(await answer(stream)) == 70_000


@pytest.mark.parametrize(
    "asked",
    [b"", bytes(7), (MAX_SIZE + 1).to_bytes(8), b"\xff" * 8, bytes(8 + MAX_SIZE + 1)],
    ids=["nothing", "less than a number", "too much back", "all there is", "too much there"],
)
async def test_what_is_no_measurement_of_ours_is_aborted(asked: bytes) -> None:
    async with measured() as connection:
        stream = await connection.open_tunnel(PROTOCOL)
        with pytest.raises(MuxedStreamError):
            await stream.write(asked)
            await stream.close_write()
            await answer(stream)
        assert stream.end is not None
        assert await measure(connection, sent=0, received=1, within=PATIENCE)  # nobody else is harmed


async def test_strangers_measure_nothing() -> None:
    async with measured(admits=lambda connection: False) as connection:
        assert await measure(connection, sent=0, received=1, within=PATIENCE) is None


async def test_one_at_a_time() -> None:
    async with measured() as connection:
        first = await connection.open_tunnel(PROTOCOL)
        await first.write(bytes(8))
        assert await measure(connection, sent=0, received=1, within=PATIENCE) is None
        await first.close_write()
        assert await answer(first) == b""
        assert await measure(connection, sent=0, received=1, within=PATIENCE)


async def test_the_next_may_begin_as_soon_as_the_end_of_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with measured() as connection:
        is_over = trio.Event()

        async def close_write(stream: MuxedStream) -> None:
            stream.finish()
            if stream.muxed_conn is not connection:  # the server's task goes on late
                await is_over.wait()

        monkeypatch.setattr(MuxedStream, "close_write", close_write)
        for _ in range(2):
            assert await measure(connection, sent=0, received=1, within=PATIENCE)
        is_over.set()


async def test_who_does_not_speak_it_is_not_measured() -> None:
    async with hosts("tcp") as (_, _, connection):
        assert await measure(connection, sent=0, received=1, within=PATIENCE) is None


async def test_where_nothing_comes_back_in_time_it_is_no_more_than_what_was_sent() -> None:
    async with hosts("tcp") as (server, _, connection):
        server.serve(PROTOCOL, lambda stream: None)
        assert await measure(connection, sent=1000, received=1000, within=0.1) == 1000 / 0.1
        await until(lambda: not connection.has_streams)


async def test_less_than_was_asked_for_says_nothing() -> None:
    async with hosts("tcp") as (server, _, connection):
        server.serve(PROTOCOL, MuxedStream.finish)
        assert await measure(connection, sent=0, received=1, within=PATIENCE) is None
