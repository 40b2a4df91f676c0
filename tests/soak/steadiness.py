"""Whether what lasts grows: samples of its memory and its descriptors at rest, the last ones beside the first."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from tests.soak.stage import Actor

WARM_UP = 0.25  # of all samples don't count: imports, buffers and the allocator's pools settle
MOST_MEMORY = (
    8 * 1024 * 1024
)  # bytes that a process may grow by between the first and the last third of the others
MOST_DESCRIPTORS = 3  # files and sockets
FEWEST = 4  # samples that tell something
_SETTLE = 30.0  # seconds for what a killed peer has left behind to be noticed
_FIRST = 2.0  # seconds before the first sample
_POLL = 0.05  # seconds


def thirds(values: Sequence[int]) -> tuple[float, float]:
    """Give the medians of the first and of the last third, once it is warm."""
    warm = values[int(len(values) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    return statistics.median(warm[:third]), statistics.median(warm[-third:])


@dataclass
class Growth:
    """The samples of one process."""

    name: str
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Say what grew."""
        if len(self.memory) < FEWEST:
            return [f"{self.name}: {len(self.memory)} samples tell nothing"]
        found = []
        for values, most, what in (
            (self.memory, MOST_MEMORY, "bytes of memory"),
            (self.descriptors, MOST_DESCRIPTORS, "descriptors"),
        ):
            first, last = thirds(values)
            if last > first + most:
                found.append(f"{self.name}: {what} grew from {first:.0f} to {last:.0f}")
        return found


class Watch:
    """Takes samples of those who last."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        self.growths = [Growth(actor.name) for actor in actors]
        self._actors = actors

    async def sample(self) -> None:
        """Take one of each, once it has no more open than at first, or after some patience."""
        if not self.growths[0].memory:
            await trio.sleep(_FIRST)
        for actor, growth in zip(self._actors, self.growths, strict=True):
            with trio.move_on_after(_SETTLE):
                while growth.descriptors and actor.descriptors > growth.descriptors[0]:  # noqa: ASYNC110
                    await trio.sleep(_POLL)
            growth.memory.append(actor.resident)
            growth.descriptors.append(actor.descriptors)
