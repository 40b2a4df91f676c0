"""The rounds: every workload with every subject in turn, so that all of them meet the same disturbances."""

import functools
from collections.abc import Callable, Mapping, Sequence

from tests.bench.figures import Figures
from tests.bench.programs import Failed
from tests.bench.samples import Patience, Sample, quietest, sample
from tests.bench.subjects import Subject
from tests.bench.tunnel import Tunnel
from tests.bench.workloads import CHECKS, Workload

_RETRIES = 5  # of a load whose connections were dropped

Say = Callable[[str], None]


def measure(
    tunnels: Mapping[Subject, Tunnel],
    workloads: Sequence[Workload],
    rounds: int,
    patience: Patience,
    figures: Figures,
    say: Say,
    checks: Sequence[Workload] = CHECKS,
    prepare: Callable[[int], None] = lambda _: None,
) -> None:
    """Measure all subjects with all workloads, round by round, and add to the figures.

    Args:
        checks: loads at the start of each round that count for nothing but must succeed.
        prepare: is called with the round's number before each sample.

    Raises:
        Failed: a subject lost or changed bytes.
    """
    for number in range(1, rounds + 1):
        for subject, tunnel in tunnels.items():
            for check in checks:
                _sample(subject, tunnel, check)
        for workload in workloads:
            cells = []
            for subject, tunnel in tunnels.items():
                ready = functools.partial(prepare, number)
                taken = quietest(functools.partial(_sample, subject, tunnel, workload, ready), patience)
                figures.add(subject.name, taken.figures, taken.is_disturbed)
                figures.failed[subject.name] += taken.failed
                figures.samples += 1
                figures.disturbed += taken.is_disturbed
                cells.append(" ".join(f"{value:.4g}" for value in taken.figures.values()))
            say(f"{number}/{rounds} {workload.name:24} {' | '.join(cells)}")


def _sample(
    subject: Subject, tunnel: Tunnel, workload: Workload, prepare: Callable[[], None] = lambda: None
) -> Sample:
    prepare()
    for _ in range(_RETRIES if subject.drops else 0):
        try:
            return sample(subject.name, tunnel, workload)
        except Failed:
            continue
    return sample(subject.name, tunnel, workload)
