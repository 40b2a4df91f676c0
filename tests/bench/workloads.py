"""What a subject is put through, and the figures that come of it.

The load is made by the Go peer's `bench-client` and `bench-server`, which cost little beside what they measure. Every
bulk transfer compares the bytes that were counted at both ends; the random bytes and digests of CHECKS would cost more
than most tunnels, so they come before the measurement.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

_WARMING = 200  # round trips that bench-client makes before it counts


class Unit(Enum):
    """What a figure is in, how it is written, whether more of it is better, and whether the clock measured it.

    Who shares the machine with others has less of it by the clock; its processor time changes little.
    """

    MB_PER_S = ("MB/s", 0, True, True)
    CPU_S_PER_GIB = ("CPU s/GiB", 2, False, False)
    MICROSECONDS = ("µs", 0, False, True)
    PER_S = ("/s", 0, True, True)
    CPU_MICROSECONDS = ("CPU µs", 0, False, False)
    MIB = ("MiB", 0, False, False)
    SECONDS = ("s", 2, False, True)
    SHARES = ("largest ÷ smallest share", 2, False, True)

    def __init__(self, label: str, digits: int, more_is_better: bool, is_of_the_clock: bool) -> None:
        self.label = label
        self.digits = digits
        self.more_is_better = more_is_better
        self.is_of_the_clock = is_of_the_clock


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of the tables."""

    name: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Workload:
    """One run of the load generator.

    Attributes:
        name: which of its figures are meant, where several workloads give the same.
        arguments: for `bench-client`.
        fields: the fields of its answer that are kept, as metrics.
        cpu: the metric that the tunnel's processor time becomes, if any.
        cpu_seconds: how many seconds of that one unit of the metric is, for the whole load.
        beside: for another `bench-client`, which runs through the same tunnel meanwhile.
    """

    name: str
    arguments: tuple[str, ...]
    fields: tuple[tuple[str, Metric], ...] = ()
    cpu: Metric | None = None
    cpu_seconds: float = 1.0
    beside: tuple[str, ...] = ()

    def figures(self, answer: dict[str, Any], processor_seconds: float | None) -> dict[Metric, float]:
        """Return what an answer of the load generator says, and the tunnel's processor time for it."""
        found = {metric: float(answer[field]) for field, metric in self.fields}
        if self.cpu is not None and processor_seconds is not None:
            found[self.cpu] = processor_seconds / self.cpu_seconds
        return found


def _bulk(mode: str, streams: int, mib: int, where: str = "") -> Workload:
    name = f"{mode}, {streams} stream{'s' if streams > 1 else ''}{where}"
    shares = (("share", Metric(name, Unit.SHARES)),) if streams > 1 else ()
    return Workload(
        name,
        ("--mode", mode, "--mib", str(mib), "--c", str(streams)),
        (("mb_per_s", Metric(name, Unit.MB_PER_S)), *shares),
        Metric(name, Unit.CPU_S_PER_GIB),
        mib / 1024,
    )


def _echo(n: int) -> Workload:
    p50, p99 = Metric("echo p50", Unit.MICROSECONDS), Metric("echo p99", Unit.MICROSECONDS)
    return Workload(
        "echo",
        ("--mode", "latency", "--n", str(n)),
        (("p50_us", p50), ("p99_us", p99)),
        Metric("echo", Unit.CPU_MICROSECONDS),
        (n + _WARMING) / 1e6,
    )


def _echo_beside(mode: str, n: int) -> Workload:
    metric = Metric(f"echo p50 beside {mode}", Unit.MICROSECONDS)
    return Workload(
        metric.name,
        ("--mode", "latency", "--n", str(n)),
        (("p50_us", metric),),
        beside=("--mode", mode, "--mib", str(1 << 20)),  # more than it can do: it is ended with the echoes
    )


def _tunnels(n: int, parallel: int, where: str = "") -> Workload:
    name = f"tunnels, {parallel} at a time{where}"
    return Workload(
        name,
        ("--mode", "connections", "--n", str(n), "--c", str(parallel)),
        (("per_s", Metric(name, Unit.PER_S)),),
        Metric(name, Unit.CPU_MICROSECONDS),
        n / 1e6,
    )


CHECKS = tuple(
    Workload(f"check of {mode}", ("--mode", mode, "--mib", "32", "--c", "4", "--verify"))
    for mode in ("send", "recv")
)
IDLE = Metric("idle", Unit.MIB)
PEAK = Metric("peak", Unit.MIB)
MANY = Metric("with 1,000 idle tunnels", Unit.MIB)
STALLED = Metric("with 50 stalled streams", Unit.MIB)
ECHO_P50 = Metric("echo p50", Unit.MICROSECONDS)
ECHO_P99 = Metric("echo p99", Unit.MICROSECONDS)
TUNNELS = tuple(Metric(f"tunnels, {parallel} at a time", Unit.PER_S) for parallel in (1, 16))
HELP_START, BIND_START, DEMO = (
    Metric(name, Unit.SECONDS) for name in ("pt --help", "pt bind until it listens", "pt demo")
)
SHORT = 4  # MiB of a transfer that ends soon
NEAREST = 20  # ms there and back, of the shortest distance


def away(milliseconds: int) -> str:
    """Return the end of the names of metrics at a distance, there and back; nothing for none."""
    return f", {milliseconds} ms away" if milliseconds else ""


def received(milliseconds: int) -> Metric:
    """Return what stands for throughput at a distance."""
    return Metric(f"recv, 1 stream{away(milliseconds)}", Unit.MB_PER_S)


def hasty(milliseconds: int) -> Metric:
    """Return what stands for a transfer at a distance that is over before most have got up to speed."""
    return Metric(f"recv, {SHORT} MiB{away(milliseconds)}", Unit.MB_PER_S)


def full(mib: int) -> tuple[Workload, ...]:
    """Return everything that is measured, with so many MiB in each bulk transfer."""
    bulk = tuple(_bulk(mode, streams, mib) for streams in (1, 8) for mode in ("send", "recv"))
    beside = tuple(_echo_beside(mode, 300) for mode in ("send", "recv"))
    return (*bulk, _echo(3000), *beside, _tunnels(500, 1), _tunnels(2000, 16))


def far(mib: int) -> tuple[Workload, ...]:
    """Return what is measured through a line that takes its time."""
    where = away(NEAREST)
    return (_bulk("send", 1, mib, where), _bulk("recv", 1, mib, where), _tunnels(40, 1, where))


def away_only(mib: int, milliseconds: int) -> tuple[Workload, ...]:
    """Return what tells throughput at a distance, and how soon it is reached."""
    long, short = _bulk("recv", 1, mib, away(milliseconds)), hasty(milliseconds)
    load = ("--mode", "recv", "--mib", str(SHORT), "--c", "1")
    return replace(long, cpu=None), Workload(short.name, load, (("mb_per_s", short),))


def lossy(mib: int, where: str) -> tuple[Workload, ...]:
    """Return what is measured on a line that loses packets."""
    return tuple(replace(_bulk(mode, 1, mib, where), cpu=None) for mode in ("send", "recv"))


def quick(mib: int) -> tuple[Workload, ...]:
    """Return what can tell a regression within a minute."""
    return (_bulk("send", 1, mib), _bulk("recv", 1, mib), _echo(1000))
