"""What `pt` promises beside its rivals, and the far wider margins in which a regression shows on any machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.far import FARTHER
from tests.bench.figures import Figures
from tests.bench.lossy import LINES
from tests.bench.subjects import (
    DIRECT,
    DUMBPIPE,
    GO_NOISE,
    GO_QUIC,
    GO_TLS,
    PT,
    PT_QUIC,
    RUST_QUIC,
    SOCAT,
    SSH,
    SSH_GCM,
)
from tests.bench.workloads import (
    BIND_START,
    DEMO,
    ECHO_P50,
    ECHO_P99,
    HELP_START,
    IDLE,
    MANY,
    NEAREST,
    STALLED,
    TUNNELS,
    Metric,
    Unit,
    away,
    hasty,
)

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


@dataclass(frozen=True, slots=True)
class Within:
    """A bound on a figure of `pt` itself, or on what it exceeds another one by; at most so much."""

    metric: Metric
    bound: float
    over: Metric | None = None

    def verdict(self, figures: Figures) -> Verdict | None:
        """Judge a run; None if this was not measured."""
        value = figures.median(PT.name, self.metric)
        base = 0.0 if self.over is None else figures.median(PT.name, self.over)
        if value is None or base is None:
            return None
        digits = self.metric.unit.digits
        is_certain = figures.is_trusted(PT.name, self.metric)
        words = ("yes" if value - base <= self.bound else "NO") if is_certain else "who knows"
        over = "" if self.over is None else f" over {self.over.name}"
        what = f"{self.metric.name}{over}, {self.metric.unit.label}: {value - base:.{digits}f}"
        return Verdict(
            is_certain, value - base <= self.bound, f"{what}; at most {self.bound:g} wanted: {words}"
        )


@dataclass(frozen=True, slots=True)
class AsGood:
    """A bound on the ratio of one figure of `pt` to another of its own; at least so much."""

    metric: Metric
    other: Metric
    bound: float

    def verdict(self, figures: Figures) -> Verdict | None:
        """Judge a run; None if either was not measured."""
        value, base = (figures.median(PT.name, metric) for metric in (self.metric, self.other))
        if value is None or not base:
            return None
        is_certain = all(figures.is_trusted(PT.name, metric) for metric in (self.metric, self.other))
        is_kept = value / base >= self.bound
        words = ("yes" if is_kept else "NO") if is_certain else "who knows"
        what = f"{self.metric.name}, {self.metric.unit.label}: {value / base:.2f} x {self.other.name}"
        return Verdict(is_certain, is_kept, f"{what}; at least {self.bound:.2f} wanted: {words}")


Bound = Wanted | Within | AsGood


def _against_go(bulk: float, cpu: float, echo: float) -> tuple[Wanted, ...]:
    return (
        *(Wanted(Metric(name, Unit.MB_PER_S), GO_NOISE.name, bulk) for name in _BULK[:2]),
        *(Wanted(Metric(name, Unit.CPU_S_PER_GIB), GO_NOISE.name, cpu) for name in _BULK),
        Wanted(ECHO_P50, GO_NOISE.name, echo),
    )


def _over_quic() -> Iterator[Wanted]:
    for name in _BULK[:2]:
        yield Wanted(Metric(name, Unit.MB_PER_S), GO_QUIC.name, 1.6, PT_QUIC.name)
        yield Wanted(Metric(name, Unit.MB_PER_S), RUST_QUIC.name, 1.2, PT_QUIC.name)
        yield Wanted(Metric(name, Unit.CPU_S_PER_GIB), GO_QUIC.name, 0.6, PT_QUIC.name)
    yield Wanted(ECHO_P50, GO_QUIC.name, 1.0, PT_QUIC.name)
    for metric in TUNNELS:
        yield Wanted(metric, GO_QUIC.name, 1.0, PT_QUIC.name)


def _beside_others() -> Iterator[Wanted]:
    for name in _BULK[:2]:
        for rival, bound in ((GO_TLS, 1.3), (SSH, 1.5), (SSH_GCM, 1.0), (DUMBPIPE, 2.0), (SOCAT, 0.65)):
            yield Wanted(Metric(name, Unit.MB_PER_S), rival.name, bound)
        yield Wanted(Metric(name + away(NEAREST), Unit.MB_PER_S), GO_NOISE.name, 1.2)
        mode = name.partition(",")[0]
        yield Wanted(Metric(f"echo p50 beside {mode}", Unit.MICROSECONDS), GO_NOISE.name, 1.0)
    for milliseconds in FARTHER:
        yield Wanted(hasty(milliseconds), GO_NOISE.name, 1.0)
    yield Wanted(ECHO_P99, GO_NOISE.name, 1.0)
    for metric in TUNNELS:
        yield Wanted(metric, GO_NOISE.name, 1.0)
    yield Wanted(Metric(f"tunnels, 1 at a time{away(NEAREST)}", Unit.PER_S), DIRECT.name, 0.95)


def _on_lossy_lines() -> Iterator[Wanted]:
    for line in LINES:
        ours, rival = line.subjects
        for name in _BULK[:2]:
            yield Wanted(Metric(name + line.name, Unit.MB_PER_S), rival.name, 1.0, ours.name)


def _alone() -> Iterator[Within | AsGood]:
    for one, eight in zip(_BULK[:2], _BULK[2:], strict=True):
        yield AsGood(Metric(eight, Unit.MB_PER_S), Metric(one, Unit.MB_PER_S), 1.0)
        yield Within(Metric(eight, Unit.SHARES), 2.0)
    for mode in ("send", "recv"):
        yield Within(Metric(f"echo p50 beside {mode}", Unit.MICROSECONDS), 2000)
    yield Within(IDLE, 2 * 70)
    yield Within(MANY, 2 * 20, IDLE)
    yield Within(STALLED, 2 * 64, IDLE)
    yield Within(HELP_START, 0.12)
    yield Within(BIND_START, 1.0)
    yield Within(DEMO, 5.0)


PROMISED: tuple[Bound, ...] = (
    *_against_go(bulk=1.7, cpu=0.65, echo=1.0),
    *(Wanted(Metric(name, Unit.MB_PER_S), GO_NOISE.name, 1.3) for name in _BULK[2:]),
    *_beside_others(),
    *_on_lossy_lines(),
    *_alone(),
    *_over_quic(),
)
GUARDED = _against_go(bulk=0.7, cpu=1.1, echo=3.0)


def verdicts(wanted: tuple[Bound, ...], figures: Figures) -> list[Verdict]:
    """Judge all bounds whose metrics were measured."""
    return [verdict for one in wanted if (verdict := one.verdict(figures))]
