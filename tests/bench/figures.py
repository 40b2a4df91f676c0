"""The values of one run, and what can be read from them."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.bench.workloads import Metric


class _Value(NamedTuple):
    value: float
    is_disturbed: bool


@dataclass(slots=True)
class Figures:
    """All values of one run.

    Attributes:
        values: of each subject's name and metric, one for each round.
        failed: connections that were refused or cut, of each subject's name.
        samples: how many were taken and kept.
        disturbed: how many of them others disturbed.
    """

    values: dict[tuple[str, Metric], list[_Value]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    samples: int = 0
    disturbed: int = 0

    def add(self, name: str, values: Mapping[Metric, float], is_disturbed: bool = False) -> None:
        """Add one value for each of some metrics of a subject; others may have disturbed them."""
        for metric, value in values.items():
            self.values[name, metric].append(_Value(value, is_disturbed and metric.unit.is_of_the_clock))

    def median(self, name: str, metric: Metric) -> float | None:
        """Return the median of a subject's values, None if there are none."""
        values = self.values.get((name, metric))
        return statistics.median(value for value, _ in values) if values else None

    def ratio(self, name: str, rival: str, metric: Metric) -> float | None:
        """Return a subject's median as a multiple of its rival's, None if either is missing."""
        ours, theirs = self.median(name, metric), self.median(rival, metric)
        return ours / theirs if ours is not None and theirs else None

    def is_trusted(self, name: str, metric: Metric) -> bool:
        """Whether others left at least half of a subject's values alone."""
        values = self.values.get((name, metric), [])
        return 2 * sum(is_disturbed for _, is_disturbed in values) <= len(values)
