"""The rounds: every workload with every subject in turn, so that all of them meet the same disturbances."""

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.programs import Failed
from tests.bench.samples import Patience, Sample, quietest, sample
from tests.bench.subjects import Subject
from tests.bench.tunnel import Tunnel
from tests.bench.workloads import CHECKS, Metric, Workload

_RETRIES = 5  # of a load whose connections were dropped

Say = Callable[[str], None]


@dataclass(slots=True)
class Figures:
    """All values of one run.

    Attributes:
        values: of each subject's name and metric, one for each round.
        failed: connections that were refused or cut, of each subject's name.
        samples: how many were taken and kept.
        disturbed: how many of them others disturbed.
    """

    values: dict[tuple[str, Metric], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    samples: int = 0
    disturbed: int = 0

    def add(self, name: str, values: Mapping[Metric, float]) -> None:
        """Add one value for each of some metrics of a subject."""
        for metric, value in values.items():
            self.values[name, metric].append(value)

    def median(self, name: str, metric: Metric) -> float | None:
        """Return the median of a subject's values, None if there are none."""
        values = self.values.get((name, metric))
        return statistics.median(values) if values else None

    def ratio(self, name: str, rival: str, metric: Metric) -> float | None:
        """Return a subject's median as a multiple of its rival's, None if either is missing."""
        ours, theirs = self.median(name, metric), self.median(rival, metric)
        return ours / theirs if ours is not None and theirs else None


def measure(
    tunnels: Mapping[Subject, Tunnel],
    workloads: Sequence[Workload],
    rounds: int,
    patience: Patience,
    figures: Figures,
    say: Say,
) -> None:
    """Measure all subjects with all workloads, round by round, and add to the figures.

    Raises:
        Failed: a subject lost or changed bytes.
    """
    for number in range(1, rounds + 1):
        for subject, tunnel in tunnels.items():
            for check in CHECKS:
                _sample(subject, tunnel, check)
        for workload in workloads:
            cells = []
            for subject, tunnel in tunnels.items():
                taken = quietest(functools.partial(_sample, subject, tunnel, workload), patience)
                figures.add(subject.name, taken.figures)
                figures.failed[subject.name] += taken.failed
                figures.samples += 1
                figures.disturbed += taken.is_disturbed
                cells.append(" ".join(f"{value:.4g}" for value in taken.figures.values()))
            say(f"{number}/{rounds} {workload.name:24} {' | '.join(cells)}")


def _sample(subject: Subject, tunnel: Tunnel, workload: Workload) -> Sample:
    for _ in range(_RETRIES if subject.drops else 0):
        try:
            return sample(subject.name, tunnel, workload)
        except Failed:
            continue
    return sample(subject.name, tunnel, workload)
