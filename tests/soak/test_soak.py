"""A short soak is whole; and the long one would notice what is lost, cut short or growing."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from tests.bench.page import PARTS
from tests.node.pair import PATIENCE
from tests.soak import exchanges
from tests.soak.exchanges import ALL, Exchange, Short, Wrong, answer, request
from tests.soak.report import HEADING, section
from tests.soak.run import soak
from tests.soak.steadiness import FEWEST, MOST_DESCRIPTORS, MOST_MEMORY, Growth, thirds

MIB = 1 << 20


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulk of a size for CI."""
    monkeypatch.setattr(exchanges, "_BULK", (1, 4 * MIB))


async def test_a_short_soak_is_whole() -> None:
    result = await soak(20 / 60, seed=0)
    assert not result.faults
    assert set(result.tunnels) == set(ALL) and result.checked > 10 * MIB
    assert all(result.backs.values()) and len(result.backs) == 3
    assert all(len(growth.memory) >= FEWEST for growth in result.growths)
    text = section(result)
    assert text.startswith(HEADING) and "nothing was lost" in text
    assert all(growth.name in text for growth in result.growths)


def test_its_part_of_the_page_has_an_owner() -> None:
    assert HEADING in PARTS


@pytest.mark.parametrize(("more", "kept"), [(0, True), (1, False)])
def test_growth_is_judged_when_it_is_warm(more: int, kept: bool) -> None:
    """What the warm-up and a single peak add says nothing; what stays does."""
    growth = Growth("a process")
    for number in range(12):
        grown = (MOST_MEMORY + more, MOST_DESCRIPTORS + more) if number >= 9 else (0, 0)
        is_cold = number < 3
        growth.memory.append(MIB * (1 if is_cold else 100) + grown[0] + (900 * MIB if number == 5 else 0))
        growth.descriptors.append((1 if is_cold else 10) + grown[1] + (900 if number == 5 else 0))
    assert thirds(growth.descriptors) == (10, 10 + MOST_DESCRIPTORS + more)
    assert len(growth.faults()) == (0 if kept else 2)


def test_too_few_samples_are_a_fault() -> None:
    growth = Growth("a process", [1] * (FEWEST - 1), [1] * (FEWEST - 1))
    assert growth.faults()


Spoil = Callable[[bytes], bytes]


@asynccontextmanager
async def spoilt(spoil: Spoil) -> AsyncIterator[trio.SocketStream]:
    """Connect to a target of which the answers are spoilt on their way; a reset comes as an end."""
    ours, near = map(_stream, socket.socketpair())
    far, theirs = map(_stream, socket.socketpair())

    async def serve() -> None:
        want, _, size = await request(theirs)
        await answer(theirs, want, size)

    async def forward(source: trio.SocketStream, sink: trio.SocketStream, change: Spoil) -> None:
        async for part in source:
            await sink.send_all(change(part))
        await sink.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(forward, near, far, lambda part: part)
        nursery.start_soon(forward, far, near, spoil)
        yield ours
        nursery.cancel_scope.cancel()


def _stream(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def whole(part: bytes) -> bytes:
    return part


def flipped(part: bytes) -> bytes:
    return bytes([part[0] ^ 1]) + part[1:]


def shortened(part: bytes) -> bytes:
    return part[:-1]


@pytest.mark.parametrize(
    ("exchange", "spoil"),
    [
        (exchanges.up, flipped),
        (exchanges.up, shortened),
        (exchanges.down, flipped),
        (exchanges.down, shortened),
        (exchanges.echo, flipped),
        (exchanges.dropped, whole),
    ],
)
async def test_an_exchange_notices_what_is_wrong(exchange: Exchange, spoil: Spoil) -> None:
    with trio.fail_after(PATIENCE):
        async with spoilt(spoil) as stream:
            with pytest.raises(Wrong):
                await exchange(stream, 0, Random(0))


async def test_the_target_notices_an_end_that_comes_too_early() -> None:
    with trio.fail_after(PATIENCE):
        near, far = map(_stream, socket.socketpair())
        await near.send_all(b"almost")
        await near.send_eof()
        with pytest.raises(Short):
            await answer(far, exchanges.Want.UP, 7)
