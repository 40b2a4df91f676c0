"""Networks fail under `pt`: new tunnels work again within ten seconds, and nothing ends short in silence."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.nat import faults
from tests.nat.crossing import Crossing, Trio, consuming, crossing, open_lab, relaying, serving
from tests.nat.faults import Fault
from tests.nat.lab.kinds import Kind, Nat
from tests.nat.makes import Pt
from tests.nat.together import together
from tests.nat.transfer import CHUNK, transferring
from tests.tools import need_quic

RECOVERY_SECONDS = 10.0
DIRECT_SECONDS = 15.0
EVERY_SECONDS = 0.5

FAULTS: dict[str, Fault] = {
    "cut off for 20 s": faults.cut_off,  # first, for it takes the longest
    "flushed": faults.flushed,
    "renumbered": faults.renumbered,
    "replaced by a symmetric one": faults.replaced,
    "serving another address": faults.moved,
    "relay killed": faults.relay_killed,
}

BETWEEN: list[tuple[Kind, str]] = [("none", "consumer"), ("cone", "provider"), ("cone", "consumer")]


@asynccontextmanager
async def _tunnel(folder: Path, provider: Kind, consumer: Kind) -> AsyncIterator[Crossing]:
    nats = Nat(provider, delay_ms=5), Nat(consumer, delay_ms=5)
    async with crossing(Trio(Pt(), Pt(), Pt()), *nats, folder) as opened:
        yield opened


async def _survive(opened: Crossing, fault: Fault, behind: str) -> None:
    assert await opened.direct(DIRECT_SECONDS)
    async with transferring(opened) as transfer:
        await transfer.moved(10 * CHUNK)
        await fault(opened.site, opened.site.lab.router(behind))
        await opened.byte(RECOVERY_SECONDS, EVERY_SECONDS)
        await transfer.finish()


async def _survive_between(provider: Kind, fault: Fault, behind: str, folder: Path) -> None:
    async with _tunnel(folder, provider, "cone") as opened:
        await _survive(opened, fault, behind)


async def _be_found_again(fault: Fault, transport: str, folder: Path) -> None:
    nats = {name: Nat("cone", delay_ms=5) for name in ("provider", "first", "second")}
    pt = Pt((transport,))
    async with open_lab(nats) as lab, serving(lab, Trio(pt, pt, pt), folder) as site:
        async with consuming(site, lab.host("first")) as opened:
            await opened.first_byte()
            assert await opened.direct(DIRECT_SECONDS)
        await fault(site, lab.router("provider"))
        async with consuming(site, lab.host("second")) as opened:
            await opened.first_byte()
            assert await opened.direct(DIRECT_SECONDS)


@pytest.mark.timeout(150)
async def test_a_provider_whose_router_failed_is_reached_directly_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its relay must see the port again through which holes are punched, though the old connection may be in the way."""
    need_quic()
    await together(
        {
            f"{name}, {transport}": partial(
                _be_found_again, fault, transport, tmp_path_factory.mktemp("fault")
            )
            for transport in ("quic", "tcp")
            for name, fault in FAULTS.items()
            if fault in (faults.cut_off, faults.flushed, faults.renumbered, faults.moved)
        }
    )


@pytest.mark.timeout(300)
async def test_tunnels_come_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Those of a public provider, whose consumers' router fails; and punched ones, whichever of the two routers does."""
    await together(
        {
            f"{provider} provider, {behind}'s router {name}": partial(
                _survive_between, provider, fault, behind, tmp_path_factory.mktemp("fault")
            )
            for name, fault in FAULTS.items()
            for provider, behind in BETWEEN
        }
    )


async def test_relayed_tunnels_come_back_with_the_relay(tmp_path: Path) -> None:
    async with _tunnel(tmp_path, "symmetric", "symmetric") as opened:
        site = opened.site
        await faults.relay_killed(site, site.lab.router("consumer"))
        async with relaying(site.lab, site.parties, tmp_path):
            await opened.byte(RECOVERY_SECONDS, EVERY_SECONDS)
