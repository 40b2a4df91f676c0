"""The benchmark tells the truth: what it counts, what it repeats, what it refuses and what it judges."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.figures import Figures
from tests.bench.page import PARTS, kept, put
from tests.bench.programs import Failed, program
from tests.bench.run import guard
from tests.bench.samples import FOREIGN_LIMIT, Patience, Sample, load_target, quietest, sample
from tests.bench.subjects import GO_NOISE, PT, built
from tests.bench.tunnel import Tunnel
from tests.bench.usage import Others, processor_seconds, resident_bytes
from tests.bench.wanted import Wanted
from tests.bench.workloads import CHECKS, IDLE, Metric, Unit, Workload, full
from tests.interop.build import GO
from tests.tools import lack

_BURN = "import time\nwhile time.process_time() < 0.5: pass"
_SEND = Metric("send, 1 stream", Unit.MB_PER_S)
_CPU = Metric("send, 1 stream", Unit.CPU_S_PER_GIB)


def test_counts_the_time_of_children_that_have_ended() -> None:
    """Half a second that a child burned is its parent's, as for socat's children."""
    before = processor_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", _BURN], check=True)
    assert 0.4 < processor_seconds([os.getpid()]) - before < 1.0


def test_counts_the_time_of_children_that_live() -> None:
    """A child that still runs counts for its parent, as sshd's session does."""
    script = f"import sys\n{_BURN}\nprint('burnt', flush=True)\nsys.stdin.read()"
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    before = processor_seconds([os.getpid()])
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processor_seconds([os.getpid()]) - before > 0.4
        child.communicate()


def test_notices_what_others_use() -> None:
    """An orphan, which is nobody's child here, burns half a second."""
    others = Others()
    # The shell ends at once, but whoever holds its output open is waited for.
    subprocess.run(["sh", "-c", f'{sys.executable} -c "{_BURN}" &'], check=True, stdout=subprocess.PIPE)
    assert others.cores() > 0.2


def test_tells_memory_now_from_memory_at_its_peak() -> None:
    """100 MB that were given back count for the peak only."""
    before = resident_bytes([os.getpid()])
    del (bytearray(b"x") * 100_000_000)[:]
    assert resident_bytes([os.getpid()]) < before + 50_000_000
    assert resident_bytes([os.getpid()], peak=True) >= before + 90_000_000


def test_repeats_a_disturbed_sample() -> None:
    """A sample is taken until one is quiet, and the quietest counts."""
    taken = [Sample({}, 0, foreign) for foreign in (1.5, 0.9, FOREIGN_LIMIT, 0.0)]
    best = quietest(iter(taken).__next__, Patience(60, at_once=0))
    assert best is taken[2]


def test_keeps_the_quietest_sample_on_a_busy_machine() -> None:
    """After four tries the least disturbed one counts."""
    taken = [Sample({}, 0, foreign) for foreign in (1.5, 0.9, 0.8, 1.2, 0.0)]
    assert quietest(iter(taken).__next__, Patience(60, at_once=0)) is taken[2]


def test_does_not_repeat_without_patience() -> None:
    """When the time for repetitions is used up, the first sample counts."""
    taken = [Sample({}, 0, foreign) for foreign in (1.5, 0.0)]
    assert quietest(iter(taken).__next__, Patience(0, at_once=0)) is taken[0]


def test_says_why_a_program_did_not_start() -> None:
    """The error of a program that ends at once is shown."""
    script = "import sys; sys.exit('no such thing')"
    with program([sys.executable, "-c", script]) as failing, pytest.raises(Failed, match="no such thing"):
        failing.event("ready")


@contextmanager
def _changing_proxy(target: str, at: int) -> Iterator[str]:
    """Forward one connection and change one byte of what the client sends."""
    host, _, port = target.rpartition(":")
    server = socket.create_server(("127.0.0.1", 0))

    def upwards(client: socket.socket, upstream: socket.socket) -> None:
        seen = 0
        while data := bytearray(client.recv(65536)):
            if seen <= at < seen + len(data):
                data[at - seen] ^= 1
            seen += len(data)
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)

    def forward() -> None:
        client, _ = server.accept()
        with client, socket.create_connection((host, int(port))) as upstream:
            rising = threading.Thread(target=upwards, args=(client, upstream))
            rising.start()
            while data := upstream.recv(65536):
                client.sendall(data)
            rising.join()

    forwarding = threading.Thread(target=forward)
    with server:
        forwarding.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        forwarding.join()


def test_refuses_a_tunnel_that_changes_a_byte() -> None:
    """A flipped bit in a check ends the run: no figures for a tunnel that does not carry bytes."""
    if reason := built(GO):
        lack(reason)
    check = Workload("check", ("--mode", "send", "--mib", "1", "--verify"))
    assert "--verify" in CHECKS[0].arguments
    with load_target() as target:
        sample("direct", Tunnel(target, ()), check)
        with _changing_proxy(target, at=1000) as address, pytest.raises(Failed, match="check through a liar"):
            sample("a liar", Tunnel(address, ()), check)


def test_reckons_processor_time_for_a_gib() -> None:
    """A quarter of a GiB that took 0.5 s is 2 s/GiB."""
    bulk = full(256)[0]
    assert bulk.figures({"mb_per_s": 500.0}, 0.5) == {_SEND: 500.0, _CPU: 2.0}
    assert bulk.figures({"mb_per_s": 500.0}, None) == {_SEND: 500.0}


def _figures(pt: float, go: float, metric: Metric, disturbed: int = 0) -> Figures:
    figures = Figures()
    for at, value in enumerate((0.0, pt, 10 * pt)):  # the median is what counts
        figures.add(PT.name, {metric: value}, at < disturbed)
    figures.add(GO_NOISE.name, {metric: go})
    return figures


@pytest.mark.parametrize(
    ("metric", "pt", "kept"), [(_SEND, 130, True), (_SEND, 129, False), (_CPU, 130, True), (_CPU, 131, False)]
)
def test_judges_by_the_median(metric: Metric, pt: float, kept: bool) -> None:
    """More throughput and less processor time are what is wanted."""
    verdict = Wanted(metric, GO_NOISE.name, 1.3).verdict(_figures(pt, 100, metric))
    assert verdict is not None
    assert (verdict.is_certain, verdict.is_kept) == (True, kept)


@pytest.mark.parametrize(
    ("metric", "disturbed", "certain"), [(_SEND, 1, True), (_SEND, 2, False), (_CPU, 3, True)]
)
def test_judges_nothing_that_others_disturbed(metric: Metric, disturbed: int, certain: bool) -> None:
    """What the clock says counts if most samples were quiet, processor time on any machine."""
    verdict = Wanted(metric, GO_NOISE.name, 1.3).verdict(_figures(100, 100, metric, disturbed))
    assert verdict is not None
    assert verdict.is_certain is certain


@pytest.mark.parametrize(("pt", "status"), [(70, 0), (69, 1)])
def test_guards_against_a_regression(pt: float, status: int) -> None:
    """The exit status tells a run within the margins from one without."""
    assert guard(_figures(pt, 100, _SEND)) == status


def test_guards_against_a_run_that_measured_nothing() -> None:
    """No figures are no success, and neither are figures that can't be trusted."""
    assert guard(Figures()) == 1
    assert guard(_figures(100, 100, _SEND, disturbed=3)) == 1


def test_lets_a_disturbed_figure_pass_beside_a_good_one() -> None:
    """A busy machine is no regression."""
    figures = _figures(10, 100, _SEND, disturbed=3)
    figures.add(PT.name, {_CPU: 1.0})
    figures.add(GO_NOISE.name, {_CPU: 2.0})
    assert guard(figures) == 0


def test_writes_figures_ratios_and_gaps() -> None:
    """The page has every figure, how `pt` compares, and what is missing and why."""
    figures = _figures(1234.4, 1000, _SEND)
    figures.add("direct", {IDLE: 3.0})
    figures.failed["Rust"] = 7
    figures.add(PT.name, {_CPU: 1.0})
    figures.add("direct", {_SEND: 3456.0}, is_disturbed=True)
    page = report.page(figures, [PT.name, GO_NOISE.name, "direct"], {"socat": "not installed"}, 3, 64)
    assert "| pt        |          1,234 |" in page
    assert "| direct | 3.00 |" in page
    assert "| direct    |         ~3,456 |" in page
    assert "| Go, Noise    |       **1.23** |" in page
    assert "| direct       |          ~0.36 |" in page
    assert "socat: not measured, not installed." in page
    assert "Rust: 7 tunnels failed." in page


def test_each_part_of_the_page_is_written_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.write_text("# All\n\nours\n")
    first, *_, last = PARTS
    for heading in (*PARTS[::-1], first, last):
        put(heading, f"{heading}\n\n{len(heading)} figures\n", path)
    written = path.read_text()
    assert written.startswith("# All\n\nours\n\n")
    assert all(written.count(f"{part}\n\n{len(part)} figures\n") == 1 for part in PARTS)
    assert kept(written) == written.removeprefix("# All\n\nours\n")
    assert kept("# All\n") == ""
