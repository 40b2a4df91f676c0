"""Distance: the two ends held so many milliseconds apart by a proxy, with processes of their own."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.figures import Figures
from tests.bench.measure import Say, measure
from tests.bench.samples import Patience
from tests.bench.subjects import DIRECT, GO_NOISE, PT, Subject, folder_of
from tests.bench.tunnel import Tunnel
from tests.bench.workloads import NEAREST, Workload, away, away_only, far

CURVE = (PT, GO_NOISE, DIRECT)  # whose throughput is followed as the distance grows
FARTHER = (50, 100)  # ms there and back, beyond NEAREST


@dataclass(frozen=True, slots=True)
class Distance:
    """What is measured so many milliseconds away, there and back."""

    milliseconds: int
    workloads: tuple[Workload, ...]
    subjects: tuple[Subject, ...]

    def among(self, measured: Sequence[Subject]) -> "Distance":
        """Return the same for those subjects only that are there."""
        return replace(self, subjects=tuple(it for it in self.subjects if it in measured))


def distances(mib: int, subjects: Sequence[Subject]) -> tuple[Distance, ...]:
    """Return everything for the nearest one; then only what a curve needs, with less data, as it takes longer."""
    near = Distance(NEAREST, far(mib), tuple(it for it in subjects if it.open_far is not None))
    curve = tuple(it for it in subjects if it in CURVE)
    return (near, *(Distance(each, away_only(mib // 2, each), curve) for each in FARTHER))


def measure_far(
    distance: Distance, target: str, base: Path, rounds: int, patience: Patience, figures: Figures, say: Say
) -> None:
    """Measure round by round and add to the figures.

    Args:
        target: host:port.
        base: for what the subjects keep on disk.

    Raises:
        Failed: a subject does not start, or loses bytes.
    """
    seconds = distance.milliseconds / 2 / 1000  # each way
    with ExitStack() as opened:
        tunnels: dict[Subject, Tunnel] = {}
        for subject in distance.subjects:
            assert subject.open_far is not None
            folder = folder_of(subject, base / str(distance.milliseconds))
            tunnels[subject] = opened.enter_context(subject.open_far(target, folder, seconds))
            tunnels[subject].connect().close()
        say(away(distance.milliseconds).removeprefix(", ") + ": " + " | ".join(it.name for it in tunnels))
        measure(tunnels, distance.workloads, rounds, patience, figures, say)
