"""The command: opens everything, measures it round by round, prints the tables and judges them."""

import argparse
import resource
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report, subjects, workloads
from tests.bench.far import Distance, distances, measure_far
from tests.bench.figures import Figures
from tests.bench.lossy import LINES, Line, measure_lossy
from tests.bench.lossy import why_not as why_no_lines
from tests.bench.measure import Say, measure
from tests.bench.page import PAGE, PLOT, kept
from tests.bench.plot import plot
from tests.bench.programs import Failed
from tests.bench.samples import Patience, load_target
from tests.bench.starts import measure_starts
from tests.bench.subjects import Subject, folder_of
from tests.bench.tunnel import Tunnel
from tests.bench.usage import resident_bytes
from tests.bench.wanted import GUARDED, verdicts
from tests.bench.workloads import IDLE, MANY, PEAK, STALLED, Workload
from tests.interop.build import GO

_MIB = 1 << 20
_MANY = 1000  # idle tunnels
_STALLED = 50  # tunnels that nobody reads from
_FILES = 8192  # open files: the idle tunnels, at both ends of each process


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run measures.

    Attributes:
        patience: seconds to wait, in all, for others to leave the machine alone.
        far: what is measured at distances.
        lines: those that lose packets.
        many: subjects whose memory is measured with many idle tunnels and with stalled ones, too.
        starts: whether to measure how long `pt` takes to start.
    """

    subjects: tuple[Subject, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    mib: int
    patience: float
    far: tuple[Distance, ...] = ()
    lines: tuple[Line, ...] = ()
    many: tuple[Subject, ...] = ()
    starts: bool = False


def main(arguments: Sequence[str]) -> int:
    """Measure, and return the exit status: 1 where a promise that is guarded is broken."""
    options = _options(arguments)
    plan = _plan(options)
    try:
        figures, names, missing = run(plan)
    except Failed as error:
        print(error)
        return 1
    print(report.tables(figures, names), report.ratios(figures, names), sep="\n")
    print(f"{figures.disturbed} of {figures.samples} samples were disturbed")
    if options.quick:
        return guard(figures)
    print(report.judgement(figures))
    if options.write:
        rest = kept(PAGE.read_text()) if PAGE.exists() else ""
        PAGE.write_text(report.page(figures, names, missing, plan.rounds, plan.mib) + rest)
        PLOT.write_text(plot(figures, names))
        print(f"written: {PAGE}, {PLOT}")
    return 0


def guard(figures: Figures) -> int:
    """Print how the figures keep within the margins of a regression; return 1 if they don't, or show nothing.

    On a busy machine only the processor time can tell.
    """
    judged = verdicts(GUARDED, figures)
    for verdict in judged:
        print(verdict.words)
    certain = [verdict for verdict in judged if verdict.is_certain]
    return 0 if certain and all(verdict.is_kept for verdict in certain) else 1


def run(plan: Plan, say: Say = print) -> tuple[Figures, list[str], dict[str, str]]:
    """Measure a plan.

    Returns:
        The figures, the names of the subjects that were measured, and why others, or parts, were not.

    Raises:
        Failed: a subject does not start, or loses bytes.
    """
    if reason := subjects.built(GO):
        raise Failed(f"no load generator: {reason}")
    missing = {subject.name: reason for subject in plan.subjects if (reason := subject.missing())}
    measured = [subject for subject in plan.subjects if subject.name not in missing]
    if plan.lines and (reason := why_no_lines()):
        missing["lines that lose packets"] = reason
    for name, reason in missing.items():
        say(f"{name}: not measured, {reason}")
    figures = Figures()
    common = plan.rounds, Patience(plan.patience), figures, say
    with tempfile.TemporaryDirectory() as folder, load_target() as target:
        base = Path(folder)
        _measure_near(measured, target, base / "near", plan.workloads, *common)
        for distance in plan.far:
            measure_far(distance.among(measured), target, base / "far", *common)
        for subject in plan.many:
            if subject in measured:
                _measure_many(figures, subject, target, base)
        for line in () if why_no_lines() else plan.lines:
            measure_lossy(line, measured, base / "lossy", *common)
    if plan.starts and subjects.PT in measured:
        measure_starts(figures, say)
    return figures, [subject.name for subject in measured], missing


def _measure_near(
    measured: Sequence[Subject],
    target: str,
    base: Path,
    loads: Sequence[Workload],
    rounds: int,
    patience: Patience,
    figures: Figures,
    say: Say,
) -> None:
    """Measure on loopback, and what memory that takes."""
    with ExitStack() as opened:
        tunnels: dict[Subject, Tunnel] = {}
        for subject in measured:
            tunnel = opened.enter_context(subject.open(target, folder_of(subject, base)))
            if not tunnel.entering:
                tunnel.connect().close()
            tunnels[subject] = tunnel
            _note_memory(figures, subject, tunnel, peak=False)
        say(" | ".join(subject.name for subject in measured))
        measure(tunnels, loads, rounds, patience, figures, say)
        for subject, tunnel in tunnels.items():
            _note_memory(figures, subject, tunnel, peak=True)


def _note_memory(figures: Figures, subject: Subject, tunnel: Tunnel, peak: bool) -> None:
    if tunnel.pids:
        figures.add(subject.name, {PEAK if peak else IDLE: resident_bytes(tunnel.pids, peak) / _MIB})


def _measure_many(figures: Figures, subject: Subject, target: str, base: Path) -> None:
    """Measure the memory of many tunnels, with fresh processes each: used ones have room to reuse."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    with subject.open(target, folder_of(subject, base / "many")) as tunnel:
        figures.add(subject.name, {MANY: tunnel.idle_bytes(_MANY) / _MIB})
    with subject.open(target, folder_of(subject, base / "stalled")) as tunnel:
        figures.add(subject.name, {STALLED: tunnel.stalled_bytes(_STALLED) / _MIB})


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        mib = options.mib or 128
        return Plan(subjects.QUICK, workloads.quick(mib), options.rounds or 5, mib, patience=20)
    chosen = tuple(subject for subject in subjects.ALL if not options.only or subject.name in options.only)
    mib = options.mib or 512
    many = (subjects.PT, subjects.GO_NOISE)
    return Plan(
        chosen,
        workloads.full(mib),
        options.rounds or 5,
        mib,
        options.patience,
        distances(mib, chosen),
        LINES,
        many,
        starts=True,
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="pt, Go and direct only; fail on a regression")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured  [5]")
    parser.add_argument("--mib", type=int, metavar="N", help="MiB in each bulk transfer  [512, quick 128]")
    parser.add_argument(
        "--patience", type=float, metavar="SECONDS", default=300, help="to wait for a quiet machine"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="a subject to measure; repeatable")
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help="leave docs/performance.md alone"
    )
    return parser.parse_args(arguments)
