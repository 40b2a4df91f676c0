"""What chance decides, again and again: how often, and how soon, a tunnel's path becomes a direct one."""

import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.nat.crossing import Trio, consuming, open_lab, serving
from tests.nat.lab.kinds import Kind, Nat
from tests.nat.matrix import Cell, measure_cell

LANE = 10  # runs of one provider, one after the other, each with a consumer of its own behind a router of its own


@dataclass(frozen=True, slots=True)
class Runs:
    """What came out. within: seconds that each run had for a direct path."""

    provider: Kind
    consumer: Kind
    within: float
    cells: Sequence[Cell]

    def __str__(self) -> str:
        upgrades = sorted(cell.upgrade for cell in self.cells if cell.direct and cell.upgrade is not None)
        text = f"{self.provider} to {self.consumer}: direct within {self.within:g} s in {len(upgrades)} of {len(self.cells)}"
        if upgrades:
            tenth = upgrades[int(0.9 * (len(upgrades) - 1))]
            text += f"; median {upgrades[len(upgrades) // 2]:.1f} s, 9 of 10 in {tenth:.1f} s, longest {upgrades[-1]:.1f} s"
        return text


async def repeat(
    parties: Trio, provider: Nat, consumer: Nat, times: int, within: float, at_once: int
) -> Runs:
    """Run a tunnel so many times, a few at once."""
    cells: list[Cell] = []
    places = trio.Semaphore(at_once)

    async def lane(runs: int) -> None:
        async with places:
            cells.extend(await _lane(parties, provider, consumer, runs, within))

    async with trio.open_nursery() as nursery:
        for done in range(0, times, LANE):
            nursery.start_soon(lane, min(LANE, times - done))
    return Runs(provider.kind, consumer.kind, within, cells)


async def _lane(parties: Trio, provider: Nat, consumer: Nat, runs: int, within: float) -> list[Cell]:
    cells: list[Cell] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = {"provider": provider, **{f"to-{run}": consumer for run in range(runs)}}
        lab = await stack.enter_async_context(open_lab(nats))
        site = await stack.enter_async_context(serving(lab, parties, folder))
        for run in range(runs):
            async with consuming(site, lab.host(f"to-{run}")) as crossing:
                cells.append(await measure_cell(crossing, within))
    return cells
