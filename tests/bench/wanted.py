"""What `pt` promises beside its rivals, and the far wider margins in which a regression shows on any machine."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.measure import Figures
from tests.bench.subjects import GO_NOISE, PT
from tests.bench.workloads import ECHO_P50, Metric, Unit

_BULK = tuple(f"{mode}, {streams}" for streams in ("1 stream", "8 streams") for mode in ("send", "recv"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bound on the ratio of `pt` to a rival: at least where more is better, else at most."""

    metric: Metric
    rival: str
    bound: float

    def verdict(self, figures: Figures) -> tuple[bool, str] | None:
        """Return whether the bound is kept, and a line that says so; None if it was not measured."""
        ratio = figures.ratio(PT.name, self.rival, self.metric)
        if ratio is None:
            return None
        more = self.metric.unit.more_is_better
        kept = ratio >= self.bound if more else ratio <= self.bound
        subject = f"{self.metric.name}, {self.metric.unit.label}"
        sense = f"{'at least' if more else 'at most'} {self.bound:.2f}"
        return kept, f"{subject}: {ratio:.2f} x {self.rival}; {sense} wanted: {'yes' if kept else 'NO'}"


def _against_go(bulk: float, cpu: float, echo: float) -> tuple[Wanted, ...]:
    return (
        *(Wanted(Metric(name, Unit.MB_PER_S), GO_NOISE.name, bulk) for name in _BULK),
        *(Wanted(Metric(name, Unit.CPU_S_PER_GIB), GO_NOISE.name, cpu) for name in _BULK),
        Wanted(ECHO_P50, GO_NOISE.name, echo),
    )


PROMISED = _against_go(bulk=1.3, cpu=0.8, echo=1.2)
GUARDED = _against_go(bulk=1.0, cpu=1.0, echo=2.0)


def verdicts(wanted: tuple[Wanted, ...], figures: Figures) -> Iterator[tuple[bool, str]]:
    """Judge all bounds whose metrics were measured."""
    for one in wanted:
        if verdict := one.verdict(figures):
            yield verdict
