"""Two streams joined in a relay: every byte, both ends of it, its limits, and nobody else's business."""

import random
import socket
from contextlib import AsyncExitStack
from hashlib import sha256

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from trio.testing import MockClock

from peertunnel.protocols.circuit import Limit
from peertunnel.protocols.yamux import KEEPALIVE_INTERVAL, MAX_WINDOW
from peertunnel.transport.crossing import Crossing
from peertunnel.transport.stream import MuxedStream
from tests.node.circuits import Network, network, read_all
from tests.node.pair import PATIENCE, yamux_of

MIB = 1024 * 1024
NOISE = random.Random(5).randbytes(MIB + 7)


async def send(stream: MuxedStream, data: bytes, times: int = 1) -> None:
    for _ in range(times):
        await stream.write(data)
    await stream.close_write()


async def digest(stream: MuxedStream, delay: float = 0) -> tuple[int, str]:
    size, found = 0, sha256()
    try:
        while True:
            data = await stream.read()
            size += len(data)
            found.update(data)
            if delay:
                await trio.sleep(delay)
    except MuxedStreamEOF:
        return size, found.hexdigest()


async def test_each_direction_ends_by_itself() -> None:
    async with network() as relay, relay.circuit() as (caller, called):
        with trio.fail_after(PATIENCE):
            await send(caller, b"question")
            assert await read_all(called) == b"question"
            await send(called, b"answer")
            assert await read_all(caller) == b"answer"
            await relay.until(lambda: not relay.server.book.circuits)
            assert relay.server.carried == len(b"questionanswer")


async def test_the_destination_may_speak_and_end_first() -> None:
    async with network() as relay, relay.circuit() as (caller, called):
        with trio.fail_after(PATIENCE):
            await send(called, b"greeting")
            assert await read_all(caller) == b"greeting"
            await send(caller, b"late")
            assert await read_all(called) == b"late"


@pytest.mark.parametrize("is_answered_first", [True, False])
async def test_who_reads_no_further_may_still_answer(is_answered_first: bool) -> None:
    """As a Go peer that closes its stream, over QUIC."""
    async with network() as relay, relay.circuit() as (caller, called):
        both = [stream for one in relay.host.all_connections() for stream in one._streams.values()]
        (side,) = [stream for stream in both if stream.stream_id == called.stream_id]
        with trio.fail_after(PATIENCE):
            side.on_stopped()
            if is_answered_first:
                await send(called, b"answer")
                assert await read_all(caller) == b"answer"
            await send(caller, NOISE)  # nobody takes it, and nothing waits for that
            if not is_answered_first:
                await send(called, b"answer")
                assert await read_all(caller) == b"answer"
            await relay.until(lambda: not relay.server.book.circuits)
            await relay.until(lambda: not side.muxed_conn._streams)


def narrow(relay: Network) -> None:
    """Give the relay's sockets so little room that almost every batch blocks its connection."""
    for connection in relay.host.all_connections():
        connection._channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("delay", "is_narrow"), [(0, False), (0.002, False), (0, True)])
async def test_all_bytes_arrive_in_order_both_ways(delay: float, is_narrow: bool) -> None:
    """A slow reader, or line, has the relay keep what its window lets in, and the end comes behind the last byte."""
    async with network() as relay, relay.circuit() as (caller, called):
        results: list[tuple[int, str]] = []
        if is_narrow:
            narrow(relay)

        async def receive(stream: MuxedStream) -> None:
            results.append(await digest(stream, delay))

        times = 16
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, caller, NOISE, times)
                nursery.start_soon(send, called, NOISE, times)
                nursery.start_soon(receive, caller)
                nursery.start_soon(receive, called)
        assert results == [(len(NOISE) * times, sha256(NOISE * times).hexdigest())] * 2


async def test_who_reads_late_gets_all_without_delay() -> None:
    """The sender learns at once that there is room again, though nothing else is on its way to it."""
    async with network() as relay, relay.circuit() as (caller, called), trio.open_nursery() as nursery:
        nursery.start_soon(send, caller, NOISE, 8)
        await relay.until(lambda: bool(only(relay)._sides[1]._pending))
        with trio.fail_after(KEEPALIVE_INTERVAL):  # which would tell it, too
            assert await digest(called) == (len(NOISE) * 8, sha256(NOISE * 8).hexdigest())


def only(relay: Network) -> Crossing:
    """Give the one circuit that the relay carries."""
    (crossing,) = relay.server._crossings
    return crossing


async def test_circuits_share_a_narrow_line() -> None:
    async with network() as relay, relay.peer() as called, AsyncExitStack() as stack:
        await called.reserve()
        callers = [await stack.enter_async_context(relay.peer()) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(flood, *await caller.connect(called))
            narrow(relay)
            before = [crossing.carried for crossing in relay.server._crossings]
            begun = relay.server.carried
            await relay.until(lambda: relay.server.carried > begun + 24 * MIB)
            shares = [c.carried - b for c, b in zip(relay.server._crossings, before, strict=True)]
            nursery.cancel_scope.cancel()
    assert min(shares) > max(shares) / 3


@pytest.mark.parametrize("by_caller", [True, False])
async def test_an_abort_is_never_taken_for_an_end(by_caller: bool) -> None:
    async with network() as relay, relay.circuit() as (caller, called):
        one, other = (caller, called) if by_caller else (called, caller)
        await one.write(b"half")
        with trio.fail_after(PATIENCE):
            assert await other.read() == b"half"
            one.abort()
            with pytest.raises(MuxedStreamReset):
                await other.read()
            await relay.until(lambda: not relay.server.book.circuits)


async def test_a_lost_end_is_an_abort_for_the_other() -> None:
    async with network() as relay, relay.circuit() as (caller, called):
        yamux_of(caller.muxed_conn)._channel.close()
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            await called.read()


async def test_what_has_not_been_read_is_bounded_and_no_other_circuit_waits_for_it() -> None:
    """A destination that reads nothing holds up the sender, in the relay's window, and no other destination."""
    async with (
        network() as relay,
        relay.peer() as caller,
        relay.peer() as deaf,
        relay.peer() as lively,
        trio.open_nursery() as nursery,
    ):
        await deaf.reserve()
        await lively.reserve()
        blocked, _ = await caller.connect(deaf)
        nursery.start_soon(send, blocked, NOISE, 200)
        one, other = await caller.connect(lively)
        (crossing,) = (c for c in relay.server._crossings if c.peers[1] == deaf.peer_id)
        await relay.until(lambda: bool(crossing._sides[1]._pending))
        for word in (b"a", b"b", b"c"):
            with trio.fail_after(PATIENCE):
                await one.write(word)
                assert await other.read() == word
        assert 0 < len(crossing._sides[1]._pending) <= MAX_WINDOW
        nursery.cancel_scope.cancel()


async def test_closing_one_circuit_leaves_another_to_the_same_peer_alone() -> None:
    async with network() as relay, relay.peer() as called, relay.peer() as first, relay.peer() as second:
        await called.reserve()
        ends = [await caller.connect(called) for caller in (first, second, second)]
        ends[0][0].abort()
        with trio.fail_after(PATIENCE):
            with pytest.raises(MuxedStreamReset):
                await ends[0][1].read()
            await send(ends[1][0], b"")
            assert await read_all(ends[1][1]) == b""
            await ends[2][0].write(b"still here")
            assert await ends[2][1].read() == b"still here"


async def test_too_many_bytes_reset_both_ends() -> None:
    async with network(Limit(0, 1000)) as relay, relay.circuit() as (caller, called):
        with trio.fail_after(PATIENCE):
            await caller.write(bytes(1000))
            await called.write(bytes(1000))
            received = 0
            while received < 1000:
                received += len(await called.read())
            await caller.write(b"x")
            for stream in (caller, called):
                with pytest.raises(MuxedStreamReset):
                    await read_all(stream)


async def test_too_much_time_resets_both_ends(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.05
    async with network(Limit(120, 0)) as relay, relay.circuit() as (caller, called):
        began = trio.current_time()
        for stream in (caller, called):
            with pytest.raises(MuxedStreamReset):
                await read_all(stream)
        assert 119 < trio.current_time() - began < 130


async def test_a_trusted_peer_has_no_limits(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.05
    async with network(Limit(1, 1000)) as relay, relay.circuit(is_trusted=True) as (caller, called):
        with trio.fail_after(PATIENCE):
            await send(caller, bytes(5000))
            await trio.sleep(2)  # longer than a stranger's circuit lasts
            assert await read_all(called) == bytes(5000)
            await send(called, b"")
            assert await read_all(caller) == b""


async def flood(caller: MuxedStream, called: MuxedStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(digest, called)
        while True:
            await caller.write(NOISE)


async def test_200_circuits_of_one_relay_work_while_one_floods() -> None:
    """All share the destination's connection with the flood, which so has one turn in two hundred."""
    async with network() as relay, relay.peer() as called, relay.peer() as flooder, relay.peer() as caller:
        await called.reserve()
        circuits = [await caller.connect(called) for _ in range(200)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, *await flooder.connect(called))
            await relay.until(lambda: relay.server.carried > 8 * MIB)
            with trio.fail_after(PATIENCE):
                for turn in range(3):
                    for number, (one, _) in enumerate(circuits):
                        await one.write(bytes([turn, number]))
                    for number, (_, other) in enumerate(circuits):
                        assert await other.read() == bytes([turn, number])
            nursery.cancel_scope.cancel()
