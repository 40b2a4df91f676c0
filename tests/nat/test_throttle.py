"""Networks that slow UDP down: new tunnels go over TCP there, and nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tests.nat.crossing import Crossing, Trio, consuming, open_lab, serving
from tests.nat.lab.kinds import Nat
from tests.nat.makes import Pt
from tests.nat.together import Case, together
from tests.tools import need_quic

MIB = 1024 * 1024
BOTH = Pt(("quic", "tcp"))
UDP_RATE = 128  # KiB a second
SIZE = 4 * MIB  # of a transfer: half a minute at that rate
PATIENCE_SECONDS = 30.0
FAST_SECONDS = 10.0


async def _either_way(stream: trio.SocketStream) -> None:
    """Send without end to who says "<"; count what comes from who says ">"."""
    try:
        if await stream.receive_some(1) == b"<":
            while True:
                await stream.send_all(bytes(MIB))
        size = 0
        while size < SIZE and (data := await stream.receive_some()):
            size += len(data)
        await stream.send_all(b".")
    except trio.BrokenResourceError:
        pass


async def _transfer(opened: Crossing, way: bytes) -> None:
    async with await opened.connect() as stream:
        await stream.send_all(way)
        if way == b"<":
            size = 0
            while size < SIZE:
                size += len(await stream.receive_some())
        else:
            for _ in range(SIZE // MIB):
                await stream.send_all(bytes(MIB))
            assert await stream.receive_some() == b"."


@asynccontextmanager
async def _tunnel(folder: Path, wire: Nat) -> AsyncIterator[Crossing]:
    """Run a public provider, and a consumer behind a router."""
    async with (
        open_lab({"provider": Nat("none"), "consumer": wire}) as lab,
        serving(lab, Trio(BOTH, BOTH, BOTH), folder, serve=_either_way) as site,
        consuming(site, lab.host("consumer")) as opened,
    ):
        step = await opened.direct(PATIENCE_SECONDS)
        assert step is not None and step.transport == "quic"
        yield opened


async def _gone_over_to_tcp(opened: Crossing) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while opened.steps()[-1].transport != "tcp":
            await opened.consumer.news()


async def _leaves(way: bytes, folder: Path) -> None:
    async with _tunnel(folder, Nat("cone", delay_ms=10)) as opened, trio.open_nursery() as nursery:
        opened.site.lab.link("consumer").throttle("udp", UDP_RATE)
        nursery.start_soon(_transfer, opened, way)  # goes on where it is
        await _gone_over_to_tcp(opened)
        with trio.fail_after(FAST_SECONDS):
            await _transfer(opened, way)
        assert [event.fields["message"] for event in opened.consumer.past("warning")] == [
            "UDP is slowed down on the way to the provider: new tunnels go over TCP."
        ]
        nursery.cancel_scope.cancel()


async def _stays(folder: Path) -> None:
    async with _tunnel(folder, Nat("cone", delay_ms=10, rate="4mbit")) as opened:
        with trio.fail_after(PATIENCE_SECONDS):
            await _transfer(opened, b"<")
        assert [step.transport for step in opened.steps() if step.path != "relayed"] == ["quic"]


async def test_new_tunnels_leave_udp_where_it_alone_is_slow(tmp_path: Path) -> None:
    need_quic()
    cases: dict[str, Case] = {
        "slowed down, down": partial(_leaves, b"<", tmp_path / "down"),
        "slowed down, up": partial(_leaves, b">", tmp_path / "up"),
        "a slow line": partial(_stays, tmp_path / "line"),
    }
    await together(cases)
