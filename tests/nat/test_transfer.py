"""Transfers in the lab, with the Go peer at both ends: what TCP itself survives, and what it does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.nat import faults
from tests.nat.crossing import Crossing, Trio, crossing, relaying
from tests.nat.faults import Fault
from tests.nat.lab.kinds import Nat
from tests.nat.makes import Go
from tests.nat.transfer import CHUNK, Ending, transferring

pytestmark = pytest.mark.usefixtures("gopeer")


@asynccontextmanager
async def _tunnel(folder: Path) -> AsyncIterator[Crossing]:
    cone = Nat("cone", delay_ms=5)
    async with crossing(Trio(Go(), Go(), Go()), cone, cone, folder) as opened:
        assert await opened.direct(10)
        yield opened


SURVIVED: dict[str, Fault] = {
    "a flushed router": faults.flushed,
    "a dead relay": faults.relay_killed,
    "a dead second": partial(faults.cut_off, seconds=1),
}


@pytest.mark.parametrize("fault", SURVIVED.values(), ids=SURVIVED)
async def test_a_direct_connection_outlives(fault: Fault, tmp_path: Path) -> None:
    async with _tunnel(tmp_path) as opened, transferring(opened) as transfer:
        await transfer.moved(10 * CHUNK)
        await fault(opened.site, opened.site.lab.router("consumer"))
        await transfer.moved(10 * CHUNK)
        assert await transfer.finish() is Ending.WHOLE


async def test_a_connection_that_is_aborted_is_no_clean_end(tmp_path: Path) -> None:
    async with _tunnel(tmp_path) as opened, transferring(opened) as transfer:
        await transfer.moved(10 * CHUNK)
        opened.site.provider.process.kill()
        assert await transfer.finish() is Ending.BROKEN


async def test_a_relay_that_is_started_again_is_the_same(tmp_path: Path) -> None:
    async with _tunnel(tmp_path) as opened:
        site = opened.site
        await faults.relay_killed(site, site.lab.router("consumer"))
        async with relaying(site.lab, site.parties, tmp_path) as (place, _):
            assert place == site.place


async def test_less_than_all_with_a_clean_end_is_noticed(tmp_path: Path) -> None:
    async with _tunnel(tmp_path) as opened, transferring(opened) as transfer:
        await transfer.moved(10 * CHUNK)
        transfer.sent += 1
        with pytest.raises(AssertionError, match="clean end"):
            await transfer.finish()
