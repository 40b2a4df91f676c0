"""A QUIC transfer whose consumer moves: to another port or address outside, or to another network."""

import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from tests.clock import Clock
from tests.nat.crossing import Crossing, Serve, Trio, consuming, open_lab, serving
from tests.nat.lab.kinds import Nat, Unsolicited
from tests.nat.lab.machines import Router
from tests.nat.makes import PORT, Pt
from tests.tools import need_quic

MIB = 1024 * 1024
STALL_SECONDS = 1.0
IDLE_SECONDS = 1.0  # after which a consumer no longer asks where the next data is
TRANSFER_SECONDS = 60.0
CHUNK = 16384  # bytes
QUIC = Pt(("quic",))

pytestmark = pytest.mark.alone

Move = Callable[[Crossing], None]  # of which the commands take their time


@dataclass(frozen=True, slots=True)
class Way:
    """Who sends, how many bytes, and how many a second at most."""

    upwards: bool
    size: int = 64 * MIB
    pace: float = float("inf")


WAYS = {
    "receives": Way(upwards=False),
    "sends": Way(upwards=True),
    # So little that for most of the time the receiver has nothing on the way that wants an answer.
    "receives slowly": Way(upwards=False, size=2 * MIB, pace=0.7 * MIB),
}


class Transfer:
    """A file that goes one way through a tunnel, with what is noticed where it arrives.

    Attributes:
        clock: what the stall is measured by.
        stall: seconds, the longest time in which nothing arrived.
        under_way: a quarter has arrived.
        arrived: everything has.
    """

    def __init__(self, way: Way) -> None:
        self.clock = Clock()
        self.stall = 0.0
        self.under_way = trio.Event()
        self.arrived = trio.Event()
        self._way = way
        self._noise = random.Random(0).randbytes(way.size)
        self._digest = sha256()

    @property
    def is_whole(self) -> bool:
        """Whether what has arrived is what was sent."""
        return self._digest.digest() == sha256(self._noise).digest()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Be the target: a first byte comes back, and then it is the file's turn."""
        await stream.send_all(await stream.receive_some(1))
        await (self._take(stream) if self._way.upwards else self._send(stream))

    async def run(self, stream: trio.SocketStream) -> None:
        """Be the client."""
        await stream.send_all(b"?")
        assert await stream.receive_some(1) == b"?"
        await (self._send(stream) if self._way.upwards else self._take(stream))

    async def _send(self, stream: trio.SocketStream) -> None:
        began = trio.current_time()
        for start in range(0, self._way.size, CHUNK):
            await trio.sleep_until(began + start / self._way.pace)
            await stream.send_all(self._noise[start : start + CHUNK])
        await stream.send_eof()

    async def _take(self, stream: trio.SocketStream) -> None:
        size, last = 0, self.clock.now
        async for data in stream:
            now = self.clock.now
            self.stall, last = max(self.stall, now - last), now
            size += len(data)
            self._digest.update(data)
            if size >= self._way.size // 4:
                self.under_way.set()
        self.arrived.set()


def rebound(opened: Crossing) -> None:
    """The router forgets its mappings and makes others: the provider sees another port."""
    router = opened.site.lab.router("consumer")
    before = _ports(router)
    forgotten(opened)
    while not (after := _ports(router)):
        pass  # each look takes a process
    assert before and not before & after


def forgotten(opened: Crossing) -> None:
    """The router forgets its mappings, and will make others."""
    router = opened.site.lab.router("consumer")
    router.load(kind="symmetric")
    router.flush()


def _ports(router: Router) -> set[str]:
    """Return the ports outside from which QUIC is spoken."""
    spoken = (re.findall(r"dport=(\d+)", line) for line in router.connections() if line.startswith("udp"))
    return {outside for to, outside in spoken if to == str(PORT)}


def unplugged(opened: Crossing) -> None:
    """The cable of the consumer's machine is pulled, and it goes on by its other network."""
    opened.machine.run("ip", "link", "set", "eth0", "down")
    _prefer_other(opened)


def roamed(opened: Crossing) -> None:
    """The consumer's machine loses its address, and gets another one elsewhere."""
    address = opened.machine.run("ip", "-o", "-4", "addr", "show", "dev", "wlan0").split()[3]
    opened.machine.run("ip", "addr", "flush", "dev", "wlan0")
    opened.machine.run("ip", "addr", "flush", "dev", "eth0")
    opened.machine.run("ip", "addr", "add", address, "dev", "wlan0")
    _prefer_other(opened)


def _prefer_other(opened: Crossing) -> None:
    opened.machine.run("ip", "route", "replace", "default", "via", opened.site.lab.router("other").lan_ip)


@asynccontextmanager
async def _tunnel(folder: Path, serve: Serve, unsolicited: Unsolicited = "drop") -> AsyncIterator[Crossing]:
    """Run a public provider, and a consumer behind a router; it knows another network, which it does not use yet."""
    nats = {"provider": Nat("none"), "consumer": Nat("cone", unsolicited=unsolicited), "other": Nat("cone")}
    async with open_lab(nats) as lab:
        machine = lab.host("consumer")
        lab.router("other").join(machine, "wlan0")
        async with (
            serving(lab, Trio(QUIC, QUIC, QUIC), folder, serve=serve) as site,
            consuming(site, machine) as opened,
        ):
            yield opened


async def transferred(move: Move, way: Way, folder: Path) -> Transfer:
    """Transfer a file, with a move on the way."""
    transfer = Transfer(way)
    async with _tunnel(folder, transfer.serve) as opened:
        with trio.fail_after(TRANSFER_SECONDS):
            async with await opened.connect() as stream, trio.open_nursery() as timing:
                timing.start_soon(transfer.clock.run)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transfer.run, stream)
                    await transfer.under_way.wait()
                    await trio.to_thread.run_sync(move, opened)
                    await transfer.arrived.wait()
                timing.cancel_scope.cancel()
        assert [step.transport for step in opened.steps()] == ["quic"], "the connection was another one"
    return transfer


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("move", [rebound, unplugged, roamed])
async def test_a_transfer_goes_on_when_its_consumer(move: Move, way: Way, tmp_path: Path) -> None:
    need_quic()
    transfer = await transferred(move, way, tmp_path)
    assert transfer.is_whole
    assert transfer.stall <= STALL_SECONDS


async def test_a_router_that_refuses_for_a_consumer_ends_nothing(tmp_path: Path) -> None:
    """What the provider sends to where an idle consumer was is refused, until the consumer speaks from where it is now."""
    need_quic()
    moved = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some(1))
        await moved.wait()
        await stream.send_all(b"!")

    async with _tunnel(tmp_path, serve, unsolicited="reject") as opened:
        with trio.fail_after(TRANSFER_SECONDS):
            async with await opened.connect() as stream:
                await stream.send_all(b"?")
                assert await stream.receive_some(1) == b"?"
                await trio.sleep(IDLE_SECONDS)
                await trio.to_thread.run_sync(forgotten, opened)
                moved.set()
                assert await stream.receive_some(1) == b"!"
