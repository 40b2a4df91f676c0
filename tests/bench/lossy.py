"""Lines that lose packets: two machines of the NAT laboratory, which needs root, with a slow link to each."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ends import Ends
from tests.bench.figures import Figures
from tests.bench.measure import Say, measure
from tests.bench.samples import Patience, load_target
from tests.bench.subjects import GO_NOISE, GO_QUIC, PT, PT_QUIC, Subject, folder_of
from tests.bench.tunnel import Tunnel
from tests.bench.workloads import Workload, lossy
from tests.nat.lab.kinds import Public
from tests.nat.lab.lab import Lab
from tests.nat.lab.machines import Machine

_RATE = "100mbit"  # more than loss leaves, and what the laboratory's own process forwards with ease
_STEP = 7  # how the first loss moves from round to round: a fraction of the packets between two

# Windows, and what is known of the loss, are those of a transfer that goes on: so is the connection.
_CHECKS = tuple(
    Workload(f"check of {mode}", ("--mode", mode, "--mib", "1", "--verify")) for mode in ("send", "recv")
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and who is measured on it.

    Attributes:
        name: as in the metrics.
        milliseconds: there and back.
        packets: of so many, one is lost in each direction.
        mib: in each transfer; it takes seconds.
    """

    name: str
    milliseconds: float
    packets: int
    mib: int
    subjects: tuple[Subject, ...]


LINES = (
    Line(", 100 ms, 0.1 % lost", 100, 1000, 4, (PT, GO_NOISE)),
    Line(", 50 ms, 1 % lost", 50, 100, 2, (PT_QUIC, GO_QUIC)),
)


def why_not() -> str | None:
    """Tell why no line can be built here, or None."""
    return _lab(LINES[0]).lacking()


def measure_lossy(
    line: Line,
    measured: Iterable[Subject],
    base: Path,
    rounds: int,
    patience: Patience,
    figures: Figures,
    say: Say,
) -> None:
    """Measure round by round and add to the figures: in one round, every transfer loses the same packets.

    Raises:
        Failed: a subject does not start, or loses bytes.
        LabError: the line can't be built.
    """
    with ExitStack() as opened:
        lab = opened.enter_context(_lab(line))
        near, far = lab.host("consumer"), lab.host("provider")
        target = opened.enter_context(load_target(far.command()))
        tunnels: dict[Subject, Tunnel] = {}
        for subject in line.subjects:
            if subject in measured and subject.ends is not None:
                folder = folder_of(subject, base / f"{line.packets} packets")
                ends = subject.ends(near.ip), subject.ends(far.ip)
                tunnels[subject] = _open(opened, ends, (near, far), target, folder)
        say(line.name.removeprefix(", ") + ": " + " | ".join(it.name for it in tunnels))

        def lose(number: int) -> None:
            lab.link("provider").lose_every(line.packets, number * line.packets // _STEP % line.packets)

        lose(0)
        measure(tunnels, lossy(line.mib, line.name), rounds, patience, figures, say, _CHECKS, lose)


def _lab(line: Line) -> Lab:
    # A slow link at both machines, as packets are as large as those of the internet only there.
    wire = Public(addresses=1, delay_ms=line.milliseconds / 4, rate=_RATE)
    return Lab({}, {"consumer": wire, "provider": wire})


def _open(
    opened: ExitStack, ends: tuple[Ends, Ends], places: tuple[Machine, Machine], target: str, folder: Path
) -> Tunnel:
    entering = tuple(tuple(place.command()) for place in places)
    provider, address = opened.enter_context(ends[1].provider(target, folder, entering[1]))
    consumer, local = opened.enter_context(ends[0].consumer(address, folder, entering[0]))
    return Tunnel(local, (provider, consumer), entering[0])
