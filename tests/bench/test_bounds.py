"""Bounds on `pt` alone, and the proxy that stands for distance."""

import socket
import sys
import threading
import time

import pytest

from tests.bench.figures import Figures
from tests.bench.programs import program
from tests.bench.subjects import PT
from tests.bench.wanted import Within
from tests.bench.workloads import IDLE, MANY


@pytest.mark.parametrize(("many", "kept"), [(139.0, True), (141.0, False)])
def test_judges_what_one_figure_exceeds_another_by(many: float, kept: bool) -> None:
    """The bound is on the difference, and nothing is judged where either is missing."""
    figures, bound = Figures(), Within(MANY, 40, IDLE)
    figures.add(PT.name, {MANY: many})
    assert bound.verdict(figures) is None
    figures.add(PT.name, {IDLE: 100.0})
    verdict = bound.verdict(figures)
    assert verdict is not None and verdict.is_kept is kept and f"{many - 100:.0f}" in verdict.words


def test_distance_delays_bytes_and_ends_and_loses_none() -> None:
    """Both directions take as long as was asked, and every byte arrives, in order, before the end."""
    sent = bytes(range(256)) * 4096
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_back() -> None:
            near, _ = server.accept()
            with near:
                while data := near.recv(65536):
                    near.sendall(data)

        threading.Thread(target=send_back, daemon=True).start()
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with program([sys.executable, "-m", "tests.bench.delay", place, "0.1"]) as proxy:
            host, _, port = proxy.event("listening")["local"].rpartition(":")
            with socket.create_connection((host, int(port)), 20) as client:
                began = time.monotonic()
                client.sendall(b"?")
                assert client.recv(1) == b"?"
                assert time.monotonic() - began >= 0.2

                def send() -> None:
                    client.sendall(sent)
                    client.shutdown(socket.SHUT_WR)

                threading.Thread(target=send).start()
                received = b""
                while data := client.recv(65536):
                    received += data
    assert received == sent
