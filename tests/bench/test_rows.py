"""Rows that need more than a tunnel: even shares, lines that lose packets, and rivals that may not be there."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench import lossy, wanted
from tests.bench.figures import Figures
from tests.bench.samples import Patience, load_target, sample
from tests.bench.subjects import DUMBPIPE, GO_NOISE, PT, RATHOLE, built
from tests.bench.tunnel import Tunnel
from tests.bench.workloads import Metric, Unit, full
from tests.interop.build import GO
from tests.tools import lack

_MIB = 256
_EIGHT = full(_MIB)[3]  # recv, 8 streams
_SHARES = Metric("recv, 8 streams", Unit.SHARES)


@contextmanager
def _one_at_a_time(target: str) -> Iterator[str]:
    """Forward connections one after the other, each to its end: the most uneven of all tunnels."""
    host, _, port = target.rpartition(":")
    server = socket.create_server(("127.0.0.1", 0))

    def forward() -> None:
        for _ in range(8):
            client, _ = server.accept()
            with client, socket.create_connection((host, int(port))) as upstream:
                upstream.sendall(client.recv(65536))
                while data := upstream.recv(65536):
                    client.sendall(data)

    forwarding = threading.Thread(target=forward)
    with server:
        forwarding.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        forwarding.join()


def test_tells_even_shares_from_uneven_ones() -> None:
    """When the first of eight streams ends, the others have moved about as much, or nothing yet."""
    if reason := built(GO):
        lack(reason)
    with load_target() as target:
        even = sample("direct", Tunnel(target, ()), full(512)[3]).figures[_SHARES]
        with _one_at_a_time(target) as address:
            uneven = sample("one at a time", Tunnel(address, ()), _EIGHT).figures[_SHARES]
    assert 1 <= even < 8
    assert uneven > 1000


@pytest.mark.parametrize(("eight", "kept"), [(100.0, True), (99.0, False)])
def test_judges_eight_streams_by_one(eight: float, kept: bool) -> None:
    """A bound between two figures of `pt` itself; nothing is judged where either is missing."""
    one, many = (Metric(name, Unit.MB_PER_S) for name in ("send, 1 stream", "send, 8 streams"))
    figures, bound = Figures(), wanted.AsGood(many, one, 1.0)
    figures.add(PT.name, {many: eight})
    assert bound.verdict(figures) is None
    figures.add(PT.name, {one: 100.0})
    verdict = bound.verdict(figures)
    assert verdict is not None and verdict.is_kept is kept


def test_promises_are_judged_on_every_line_and_on_shares() -> None:
    """Each of the rows has its bound."""
    names = {bound.metric.name for bound in wanted.PROMISED}
    for line in lossy.LINES:
        assert {f"send, 1 stream{line.name}", f"recv, 1 stream{line.name}"} <= names
    assert wanted.Within(_SHARES, 2.0) in wanted.PROMISED


@pytest.mark.timeout(120)
def test_measures_on_a_line_that_loses_packets(tmp_path: Path) -> None:
    """Bytes come through whole, more slowly than the line's rate, and the distance is the line's."""
    if reason := lossy.why_not() or built(GO):
        lack(reason)
    figures, said = Figures(), list[str]()
    line = lossy.Line(", 20 ms, 5 % lost", 20, 20, 1, (GO_NOISE,))
    lossy.measure_lossy(line, [GO_NOISE], tmp_path, 1, Patience(0), figures, said.append)
    for mode in ("send", "recv"):
        speed = figures.median(GO_NOISE.name, Metric(f"{mode}, 1 stream{line.name}", Unit.MB_PER_S))
        assert speed is not None and 0.01 < speed < 12.5
    assert said[0] == "20 ms, 5 % lost: Go, Noise"


def test_says_why_there_are_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can build them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lossy.why_not() == "the NAT laboratory needs root"


def test_rivals_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are looked for on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert RATHOLE.missing() == "rathole not installed"
    assert DUMBPIPE.missing() == "dumbpipe not installed"
