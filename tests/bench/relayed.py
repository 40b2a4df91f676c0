"""Tunnels through a relay: `pt relay` beside the Go peer's, and what the ends pay for it: `python -m tests.bench.relayed`.

Writes its own part of docs/performance.md, which `python -m tests.bench` leaves as it is.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import page, report, subjects, workloads
from tests.bench.figures import Figures
from tests.bench.machine import machine
from tests.bench.programs import Program, program
from tests.bench.samples import FOREIGN_LIMIT, Patience, Sample, load_target, quietest, sample
from tests.bench.tunnel import Tunnel
from tests.bench.usage import processor_seconds
from tests.bench.workloads import Metric, Unit, Workload
from tests.interop.build import GO
from tests.tools import PT

HEADING = "## Through a relay"
WANTED = 1.0  # times what the same ends reach through the Go relay
_ID = "bench-behind-a-relay"
_HERE = ("--listen", "/ip4/127.0.0.1/tcp/0")
_TEXT = """\
{heading}

{date}, {machine}, with {mib} MiB each way and {rounds} rounds. Both ends know each other's circuit addresses only, and
nobody has limits; all is TCP and Noise. Of {samples} samples others disturbed {disturbed}, by more than {limit} cores.
Processor time is that of the two ends together, and of the relay.

{tables}
{judgement}
"""

Opened = tuple[Tunnel, tuple[int, ...]]  # the way through, with the pids of its ends; and those of the relay


@dataclass(frozen=True, slots=True)
class Way:
    """A relay with two ends.

    Attributes:
        name: as in the tables.
        open: starts all, given the target's host:port and a folder, and yields the tunnel and the relay's pids.
    """

    name: str
    open: Callable[[str, Path], AbstractContextManager[Opened]]


def _pt(folder: Path, *arguments: str) -> AbstractContextManager[Program]:
    variables = {"PT_HOME": str(folder), "PT_ID": _ID, "PT_DHT": "0", "PT_PORTMAP": "0", "PT_MDNS": "0"}
    return program([*PT, "--json", "--transport", "tcp", *arguments], variables)


def _go(*arguments: str) -> AbstractContextManager[Program]:
    return program([str(GO.binary), *arguments, "--transport", "noise"])


@contextmanager
def _pt_relay(folder: Path) -> Iterator[tuple[Program, str]]:
    secret = folder / "id"
    secret.write_text(_ID + "\n")
    with _pt(folder, "relay", *_HERE, "--no-dht", "--unlimited-id-file", str(secret)) as relay:
        yield relay, relay.event("relay")["via"]


@contextmanager
def _go_relay(_folder: Path) -> Iterator[tuple[Program, str]]:
    with _go("relay", *_HERE, "--no-dht", "--unlimited") as relay:
        yield relay, relay.event("ready")["addresses"][0]


@contextmanager
def _pt_ends(via: str, target: str, folder: Path) -> Iterator[Tunnel]:
    shared = ("--relay-only", "--relay", via)
    with _pt(folder / "provider", *shared, "tcp", "--target", target) as provider:
        circuit = f"{via}/p2p-circuit/p2p/{provider.event('ready')['peer_id']}"
        with _pt(folder / "consumer", *shared, "bind", "--port", "0", "--peer", circuit) as consumer:
            yield Tunnel(consumer.event("listening")["local"], (provider.pid, consumer.pid))


@contextmanager
def _go_ends(via: str, target: str, _folder: Path) -> Iterator[Tunnel]:
    with _go("tunnel-listen", "--relay", via, "--no-listen", "--target", target) as provider:
        provider.event("reserved")
        circuit = f"{via}/p2p-circuit/p2p/{provider.event('ready')['peer_id']}"
        with _go("tunnel-dial", "--no-listen", "--peer", circuit) as consumer:
            yield Tunnel(consumer.event("listening")["local"], (provider.pid, consumer.pid))


Relay = Callable[[Path], AbstractContextManager[tuple[Program, str]]]
Ends = Callable[[str, str, Path], AbstractContextManager[Tunnel]]


@contextmanager
def _joined(relay: Relay, ends: Ends, target: str, folder: Path) -> Iterator[Opened]:
    with relay(folder) as (running, via), ends(via, target, folder) as tunnel:
        yield tunnel, (running.pid,)


@contextmanager
def _directly(target: str, folder: Path) -> Iterator[Opened]:
    listen = ("--p2p-listen", "/ip4/127.0.0.1/tcp/0")
    with _pt(folder / "provider", *listen, "tcp", "--target", target) as provider:
        address = provider.event("ready")["addresses"][0]
        with _pt(folder / "consumer", *listen, "bind", "--port", "0", "--peer", address) as consumer:
            yield Tunnel(consumer.event("listening")["local"], (provider.pid, consumer.pid)), ()


OURS = Way("pt, `pt relay`", functools.partial(_joined, _pt_relay, _pt_ends))
THEIRS = Way("pt, the Go relay", functools.partial(_joined, _go_relay, _pt_ends))
GO_ENDS = Way("Go, the Go relay", functools.partial(_joined, _go_relay, _go_ends))
NO_RELAY = Way("pt, directly", _directly)
WAYS = (OURS, THEIRS, GO_ENDS, NO_RELAY)


def _taken(way: Way, opened: Opened, workload: Workload) -> Sample:
    """Take a sample, with the relay's processor time beside that of the ends."""
    tunnel, relay = opened
    before = processor_seconds(relay)
    found = sample(way.name, tunnel, workload)
    if relay and workload.cpu is not None:
        metric = Metric(f"{workload.name}, relay", workload.cpu.unit)
        found.figures[metric] = (processor_seconds(relay) - before) / workload.cpu_seconds
    return found


def measure(ways: Sequence[Way], rounds: int, mib: int, patience: Patience) -> Figures:
    """Measure all ways, round by round."""
    figures = Figures()
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(load_target())
        opened: dict[Way, Opened] = {}
        for number, way in enumerate(ways):
            folder = base / str(number)
            folder.mkdir()
            opened[way] = stack.enter_context(way.open(target, folder))
            opened[way][0].connect().close()
            for check in workloads.CHECKS:
                sample(way.name, opened[way][0], check)
        for turn in range(1, rounds + 1):
            for workload in workloads.full(mib)[:5]:  # the bulk transfers and the echo
                for way, running in opened.items():
                    taken = quietest(functools.partial(_taken, way, running, workload), patience)
                    figures.add(way.name, taken.figures, taken.is_disturbed)
                    figures.samples += 1
                    figures.disturbed += taken.is_disturbed
                    values = " ".join(f"{value:.4g}" for value in taken.figures.values())
                    print(f"{turn}/{rounds} {workload.name:16} {way.name:18} {values}", flush=True)
    return figures


def judgement(figures: Figures) -> str:
    """Say whether the relay keeps up with the Go relay."""
    lines = []
    for metric in dict.fromkeys(metric for _, metric in figures.values):
        ratio = figures.ratio(OURS.name, THEIRS.name, metric)
        if metric.unit is Unit.MB_PER_S and ratio is not None:
            is_trusted = all(figures.is_trusted(way.name, metric) for way in (OURS, THEIRS))
            words = ("yes" if ratio >= WANTED else "NO") if is_trusted else "who knows, others disturbed it"
            lines.append(
                f"- {metric.name}: {ratio:.2f} x the Go relay; at least {WANTED:.2f} wanted: {words}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measure, and write our part of the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relayed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--patience", type=float, default=120.0, help="seconds to wait for quiet, in all")
    parser.add_argument("--only", action="append", help="a way's name; repeatable")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    options = parser.parse_args(arguments)
    if reason := subjects.built(GO):
        print(f"no Go peer: {reason}")
        return 1
    ways = [way for way in WAYS if not options.only or way.name in options.only]
    figures = measure(ways, options.rounds, options.mib, Patience(options.patience))
    text = _TEXT.format(
        heading=HEADING,
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        mib=options.mib,
        rounds=options.rounds,
        samples=figures.samples,
        disturbed=figures.disturbed or "none",
        limit=FOREIGN_LIMIT,
        tables=report.tables(figures, [way.name for way in ways]),
        judgement=judgement(figures),
    )
    print(text)
    if options.write:
        page.put(HEADING, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
