"""What breaks on the way is a reset at both ends, in time; what only stalls loses nothing."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.interop.exchanges import read_until_reset
from tests.interop.peers import Running
from tests.interop.tunnels import Tunnel, abort, tunnel
from tests.nat.together import Case, Ends, meanwhile
from tests.tools import need_quic
from tests.traffic.processes import consumer, provider
from tests.traffic.streams import MIB, expect, noise, receive_exactly, send, send_until_reset

STALL = 8.0  # seconds without a read
FREEZE = 3.0  # seconds in which a process stands still, and is not given up
NOTICE_SECONDS = 15.0  # for a peer that is silent to be noticed
NOTICE_GONE_SECONDS = 9.0  # the same where the system tells that nobody is there; silence alone takes 10
BULK = 64 * MIB
FLOWING = 8 * MIB  # bytes after which a transfer is in full flow
PATIENCE = 30.0  # seconds for what must happen, on a busy machine

VICTIMS = ("provider", "consumer")


def end_of(joined: Tunnel, name: str) -> Running:
    """Give one of the two processes."""
    return joined.provider if name == "provider" else joined.consumer


async def hello(joined: Tunnel) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Open a tunnel that has carried a word each way."""
    client, far = await joined.open()
    await client.send_all(b"hello")
    assert await receive_exactly(far, 5) == b"hello"
    await far.send_all(b"hello")
    assert await receive_exactly(client, 5) == b"hello"
    return client, far


async def notice_a_killed(victim: str, transport: str, home: Path) -> None:
    """Kill one process while it carries bulk both ways, and see all clients and servers reset."""
    place = ("--p2p-listen", "/ip4/127.0.0.1/udp/0/quic-v1") if transport == "quic" else ()
    options = ("--transport", transport, *place)
    over = "/tcp/" if transport == "tcp" else "/quic-v1/"
    async with (
        tunnel(provider(home, *options), consumer(home, *options), over) as joined,
        trio.open_nursery() as nursery,
    ):
        idle, down, up = [await hello(joined) for _ in range(3)]
        nursery.start_soon(send_until_reset, down[1])
        nursery.start_soon(send_until_reset, up[0])
        await receive_exactly(down[0], FLOWING)
        await receive_exactly(up[1], FLOWING)
        end_of(joined, victim).process.kill()
        with trio.fail_after(NOTICE_GONE_SECONDS):
            for reader in (down[0], up[1], *idle):
                await read_until_reset(reader)


async def notice_a_frozen(victim: str, home: Path) -> None:
    """Freeze one process while it carries bulk both ways, and see the clients of the other one reset."""
    async with tunnel(provider(home), consumer(home)) as joined, trio.open_nursery() as nursery:
        idle, down, up = [await hello(joined) for _ in range(3)]
        alive = 0 if victim == "provider" else 1  # which end of each tunnel has a living process beside it
        received, sent = (down, up) if alive == 0 else (up, down)
        frozen = end_of(joined, victim).process
        try:
            nursery.start_soon(send_until_reset, received[1 - alive])
            async with trio.open_nursery() as noticing:
                noticing.start_soon(send_until_reset, sent[alive])
                await receive_exactly(down[0], FLOWING)
                await receive_exactly(up[1], FLOWING)
                frozen.send_signal(signal.SIGSTOP)
                noticing.cancel_scope.deadline = trio.current_time() + NOTICE_SECONDS
                noticing.start_soon(read_until_reset, received[alive])
                noticing.start_soon(read_until_reset, idle[alive])
            assert not noticing.cancel_scope.cancelled_caught, f"the {victim}'s silence went unnoticed"
            nursery.cancel_scope.cancel()
        finally:
            frozen.kill()


@pytest.fixture(scope="module", autouse=True)
def waits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """Silence takes its time: it is waited for while the other tests go on."""
    cases: dict[str, Case] = {}
    for victim in VICTIMS:
        homes = [tmp_path_factory.mktemp("home") for _ in range(3)]
        cases[f"{victim} killed, tcp"] = partial(notice_a_killed, victim, "tcp", homes[0])
        cases[f"{victim} killed, quic"] = partial(notice_a_killed, victim, "quic", homes[1])
        cases[f"{victim} frozen"] = partial(notice_a_frozen, victim, homes[2])
    with meanwhile(cases) as ends:
        yield ends


async def test_a_reader_that_stalls_for_8_s_loses_nothing(tmp_path: Path) -> None:
    async with tunnel(provider(tmp_path), consumer(tmp_path)) as joined, trio.open_nursery() as nursery:
        client, far = await joined.open()
        data = noise(1, BULK)
        sent = trio.Event()

        async def send_all() -> None:
            await send(far, data)
            sent.set()

        nursery.start_soon(send_all)
        with trio.move_on_after(STALL):
            await sent.wait()
        assert not sent.is_set(), "64 MiB can't be on the way to somebody who doesn't read"
        with trio.fail_after(PATIENCE):
            await hello(joined)  # nobody else waits for the slow one
            await expect(client, data)


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_short_freeze_loses_nothing(tmp_path: Path, victim: str) -> None:
    async with tunnel(provider(tmp_path), consumer(tmp_path)) as joined, trio.open_nursery() as nursery:
        client, far = await joined.open()
        data = noise(1, BULK)
        nursery.start_soon(send, far, data)
        assert await receive_exactly(client, FLOWING) == data[:FLOWING]
        process = end_of(joined, victim).process
        process.send_signal(signal.SIGSTOP)
        nursery.start_soon(thaw, process)
        with trio.fail_after(PATIENCE):
            await expect(client, data[FLOWING:])


async def thaw(process: trio.Process) -> None:
    """Let a process go on after a while."""
    try:
        await trio.sleep(FREEZE)
    finally:
        process.send_signal(signal.SIGCONT)


async def test_an_abort_after_the_own_end_was_sent_still_arrives(tmp_path: Path) -> None:
    async with tunnel(provider(tmp_path), consumer(tmp_path)) as joined:
        for first in (0, 1):
            ends = await hello(joined)
            near, away = ends[first], ends[1 - first]
            await near.send_eof()
            assert await away.receive_some() == b""
            abort(near)
            with trio.fail_after(PATIENCE):
                await send_until_reset(away)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
def test_a_killed_process_is_a_reset_at_both_ends(waits: Ends, transport: str) -> None:
    if transport == "quic":
        need_quic()
    for victim in VICTIMS:
        waits[f"{victim} killed, {transport}"].result()


def test_a_process_that_stands_still_is_noticed(waits: Ends) -> None:
    for victim in VICTIMS:
        waits[f"{victim} frozen"].result()
