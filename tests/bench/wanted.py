"""What `pt` promises beside its rivals, and the far wider margins in which a regression shows on any machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.figures import Figures
from tests.bench.subjects import GO_NOISE, GO_QUIC, PT, PT_QUIC, RUST_QUIC
from tests.bench.workloads import ECHO_P50, TUNNELS, Metric, Unit

_BULK = tuple(f"{mode}, {streams}" for streams in ("1 stream", "8 streams") for mode in ("send", "recv"))


class Verdict(NamedTuple):
    """What came of a bound: whether the machine was quiet enough to tell, whether it was kept, and both in words."""

    is_certain: bool
    is_kept: bool
    words: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bound on the ratio of `pt`, over one transport, to a rival: at least where more is better, else at most."""

    metric: Metric
    rival: str
    bound: float
    subject: str = PT.name

    def verdict(self, figures: Figures) -> Verdict | None:
        """Judge a run; None if this was not measured."""
        ratio = figures.ratio(self.subject, self.rival, self.metric)
        if ratio is None:
            return None
        more = self.metric.unit.more_is_better
        kept = ratio >= self.bound if more else ratio <= self.bound
        is_certain = all(figures.is_trusted(name, self.metric) for name in (self.subject, self.rival))
        words = ("yes" if kept else "NO") if is_certain else "who knows, others disturbed it"
        what = f"{self.metric.name}, {self.metric.unit.label}: {self.subject} {ratio:.2f} x {self.rival}"
        sense = f"{'at least' if more else 'at most'} {self.bound:.2f}"
        return Verdict(is_certain, kept, f"{what}; {sense} wanted: {words}")


def _against_go(bulk: float, cpu: float, echo: float) -> tuple[Wanted, ...]:
    return (
        *(Wanted(Metric(name, Unit.MB_PER_S), GO_NOISE.name, bulk) for name in _BULK),
        *(Wanted(Metric(name, Unit.CPU_S_PER_GIB), GO_NOISE.name, cpu) for name in _BULK),
        Wanted(ECHO_P50, GO_NOISE.name, echo),
    )


def _over_quic() -> Iterator[Wanted]:
    for name in _BULK[:2]:
        yield Wanted(Metric(name, Unit.MB_PER_S), GO_QUIC.name, 1.6, PT_QUIC.name)
        yield Wanted(Metric(name, Unit.MB_PER_S), RUST_QUIC.name, 1.2, PT_QUIC.name)
        yield Wanted(Metric(name, Unit.CPU_S_PER_GIB), GO_QUIC.name, 0.6, PT_QUIC.name)
    yield Wanted(ECHO_P50, GO_QUIC.name, 1.0, PT_QUIC.name)
    yield Wanted(TUNNELS, GO_QUIC.name, 1.0, PT_QUIC.name)


PROMISED = (*_against_go(bulk=1.3, cpu=0.8, echo=1.2), *_over_quic())
GUARDED = _against_go(bulk=0.7, cpu=1.1, echo=5.0)


def verdicts(wanted: tuple[Wanted, ...], figures: Figures) -> list[Verdict]:
    """Judge all bounds whose metrics were measured."""
    return [verdict for one in wanted if (verdict := one.verdict(figures))]
