"""Every kind of router against every other: how long a tunnel takes, and whether its path becomes a direct one."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from tests.nat.crossing import Crossing, Site, Trio, consuming, open_lab, serving
from tests.nat.lab.kinds import Kind, Nat

ATTENTION_SECONDS = 2.0  # that a consumer has the machine to itself and few others, after its first byte

LETS_DIALS_IN: tuple[Kind, ...] = ("none", "full-cone", "restricted")


def can_be_direct(one: Kind, two: Kind) -> bool:
    """Tell whether TCP can be direct between two kinds of routers.

    Where both keep one mapping, by a simultaneous open. A symmetric one's mapping nobody knows before it is used, so
    that side must dial, and the other let it in: a router that has been told no port, or has called that address.
    """
    if "symmetric" not in (one, two):
        return True
    return one in LETS_DIALS_IN or two in LETS_DIALS_IN


@dataclass(frozen=True, slots=True)
class Cell:
    """What came out: seconds from the consumer's start to the first byte; the first path and the best one; seconds
    from the first path to the best; its transport. `problem` is set where no byte came back."""

    first_byte: float | None
    first_path: str = "none"
    path: str = "none"
    upgrade: float | None = None
    transport: str = ""
    problem: str = ""

    @property
    def direct(self) -> bool:
        """Tell whether the path became a direct one."""
        return self.path not in ("none", "relayed")


async def measure_cell(crossing: Crossing, patience: float) -> Cell:
    """Open a tunnel, then wait some seconds for the direct path."""
    try:
        first_byte = await crossing.first_byte()
    except AssertionError as error:
        return Cell(None, problem=str(error))
    best = await crossing.direct(patience)
    steps = crossing.steps()
    if not steps:
        return Cell(first_byte, problem=f"no path was told:\n{crossing.consumer}")
    best = best or steps[-1]
    return Cell(first_byte, steps[0].path, best.path, best.at - steps[0].at, best.transport)


async def measure_row(
    parties: Trio,
    provider: Nat,
    consumers: Mapping[str, Nat],
    patience: Callable[[str], float],
    attention: trio.CapacityLimiter,
) -> dict[str, Cell]:
    """Run a provider, and a consumer behind each of some routers, for which a direct path gets so many seconds.

    No more consumers start at a time than `attention` allows: they share the machine, and are measured.
    """
    nats = {"provider": provider, **{f"to-{name}": nat for name, nat in consumers.items()}}
    cells: dict[str, Cell] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lab = await stack.enter_async_context(open_lab(nats))
        async with attention:
            site = await stack.enter_async_context(serving(lab, parties, folder))

        async def measure(name: str) -> None:
            cells[name] = await _measure(site, f"to-{name}", patience(name), attention)

        async with trio.open_nursery() as nursery:
            for name in consumers:
                nursery.start_soon(measure, name)
    return {name: cells[name] for name in consumers}


async def _measure(site: Site, behind: str, patience: float, attention: trio.CapacityLimiter) -> Cell:
    async with AsyncExitStack() as stack:
        async with attention:
            crossing = await stack.enter_async_context(consuming(site, site.lab.host(behind)))
            cell = await measure_cell(crossing, min(patience, ATTENTION_SECONDS))
        if cell.path == "relayed" and patience > ATTENTION_SECONDS:
            later = await measure_cell(crossing, patience - ATTENTION_SECONDS)
            cell = replace(later, first_byte=cell.first_byte)
        return cell
