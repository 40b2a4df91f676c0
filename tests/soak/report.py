"""Our part of docs/performance.md."""

import statistics
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.machine import machine
from tests.soak.steadiness import MOST_DESCRIPTORS, MOST_MEMORY, Growth, thirds

if TYPE_CHECKING:
    from tests.soak.run import Result

HEADING = "## Under load for long"
_MIB = 1 << 20
_TEXT = """\
{heading}

{date}, {machine}; written by `tox -e soak`. For {minutes:.1f} minutes seven clients on each of four routes had bulk sent both
ways, words echoed, short tunnels opened, bulk read slowly, and tunnels aborted at either end, all at once and all of it
checked; the routes were direct, found at a `pt relay`, and relayed by it. {kills} times one of the processes was killed
and started again. Of {tunnels:,} tunnels with {gib:,.1f} GiB, kills cut {cut:,}; {faults}.

| killed | times | median s until its route carried tunnels again | slowest |
| --- | ---: | ---: | ---: |
{backs}

Those who last were looked at {samples} times, when no tunnel was open; medians of the first and the last third, behind a
warm-up of a quarter. At most {memory:.0f} MiB and {descriptors} descriptors more are allowed.

| | MiB at first | at last | descriptors at first | at last |
| --- | ---: | ---: | ---: | ---: |
{growths}
"""


def section(result: "Result") -> str:
    """Write it."""
    return _TEXT.format(
        heading=HEADING,
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        minutes=result.minutes,
        kills=sum(map(len, result.backs.values())),
        tunnels=result.tunnels.total() + result.cut,
        gib=result.checked / (1 << 30),
        cut=result.cut,
        faults=f"**{len(result.faults)} faults**" if result.faults else "nothing was lost, changed or late",
        backs="\n".join(_back(name, took) for name, took in result.backs.items()),
        samples=len(result.growths[0].memory),
        memory=MOST_MEMORY / _MIB,
        descriptors=MOST_DESCRIPTORS,
        growths="\n".join(map(_growth, result.growths)),
    )


def _back(name: str, took: list[float]) -> str:
    times = f"{statistics.median(took):.1f} | {max(took):.1f}" if took else "- | -"
    return f"| {name} | {len(took)} | {times} |"


def _growth(growth: Growth) -> str:
    if not growth.memory:
        return f"| {growth.name} | - | - | - | - |"
    memory, descriptors = thirds(growth.memory), thirds(growth.descriptors)
    return (
        f"| {growth.name} | {memory[0] / _MIB:.1f} | {memory[1] / _MIB:.1f} "
        f"| {descriptors[0]:.0f} | {descriptors[1]:.0f} |"
    )
