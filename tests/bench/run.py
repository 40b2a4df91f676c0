"""The command: opens everything, measures it round by round, prints the tables and judges them."""

import argparse
import resource
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report, subjects, workloads
from tests.bench.figures import Figures
from tests.bench.measure import Say, measure
from tests.bench.page import PAGE, kept
from tests.bench.programs import Failed
from tests.bench.samples import Patience, load_target
from tests.bench.starts import measure_starts
from tests.bench.subjects import Subject
from tests.bench.tunnel import Tunnel
from tests.bench.usage import resident_bytes
from tests.bench.wanted import GUARDED, verdicts
from tests.bench.workloads import FAR, FAR_SECONDS, IDLE, MANY, PEAK, STALLED, Workload
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
        far: the workloads for subjects whose two ends can be held apart.
        many: subjects whose memory is measured with many idle tunnels and with stalled ones, too.
        starts: whether to measure how long `pt` takes to start.
    """

    subjects: tuple[Subject, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    mib: int
    patience: float
    far: tuple[Workload, ...] = ()
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
        print(f"written: {PAGE}")
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
        The figures, the names of the subjects that were measured, and why others were not.

    Raises:
        Failed: a subject does not start, or loses bytes.
    """
    if reason := subjects.built(GO):
        raise Failed(f"no load generator: {reason}")
    missing = {subject.name: reason for subject in plan.subjects if (reason := subject.missing())}
    measured = [subject for subject in plan.subjects if subject.name not in missing]
    for name, reason in missing.items():
        say(f"{name} is not measured: {reason}")
    figures = Figures()
    with ExitStack() as opened:
        base = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        target = opened.enter_context(load_target())
        tunnels: dict[Subject, Tunnel] = {}
        for subject in measured:
            tunnel = opened.enter_context(subject.open(target, _folder(subject, base / "main")))
            tunnel.connect().close()
            tunnels[subject] = tunnel
            _note_memory(figures, subject, tunnel, peak=False)
        say(" | ".join(subject.name for subject in measured))
        measure(tunnels, plan.workloads, plan.rounds, Patience(plan.patience), figures, say)
        for subject, tunnel in tunnels.items():
            _note_memory(figures, subject, tunnel, peak=True)
        if plan.far:
            _measure_far(plan, measured, target, base / "far", figures, say)
        for subject in plan.many:
            if subject in measured:
                _measure_many(figures, subject, target, base)
    if plan.starts and subjects.PT in measured:
        measure_starts(figures, say)
    return figures, [subject.name for subject in measured], missing


def _folder(subject: Subject, base: Path) -> Path:
    """Make a folder for what a subject keeps on disk."""
    folder = base / "".join(letter if letter.isalnum() else "-" for letter in subject.name)
    folder.mkdir(parents=True)
    return folder


def _note_memory(figures: Figures, subject: Subject, tunnel: Tunnel, peak: bool) -> None:
    if tunnel.pids:
        figures.add(subject.name, {PEAK if peak else IDLE: resident_bytes(tunnel.pids, peak) / _MIB})


def _measure_far(
    plan: Plan, measured: list[Subject], target: str, base: Path, figures: Figures, say: Say
) -> None:
    """Measure through a line that takes its time, with processes of their own."""
    with ExitStack() as opened:
        tunnels: dict[Subject, Tunnel] = {}
        for subject in measured:
            if subject.open_far is not None:
                far = subject.open_far(target, _folder(subject, base), FAR_SECONDS)
                tunnels[subject] = opened.enter_context(far)
                tunnels[subject].connect().close()
        say(FAR.removeprefix(", ") + ": " + " | ".join(subject.name for subject in tunnels))
        measure(tunnels, plan.far, plan.rounds, Patience(plan.patience), figures, say)


def _measure_many(figures: Figures, subject: Subject, target: str, base: Path) -> None:
    """Measure the memory of many tunnels, with fresh processes each: used ones have room to reuse."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    with subject.open(target, _folder(subject, base / "many")) as tunnel:
        figures.add(subject.name, {MANY: tunnel.idle_bytes(_MANY) / _MIB})
    with subject.open(target, _folder(subject, base / "stalled")) as tunnel:
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
        workloads.far(mib),
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
