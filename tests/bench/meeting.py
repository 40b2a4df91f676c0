"""From `pt bind` to the first byte of an HTTP reply, by how the two find each other: `python -m tests.bench.meeting`.

Writes its own part of docs/performance.md, which `python -m tests.bench` leaves as it is.
"""

import argparse
import http.server
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import page
from tests.bench.machine import machine
from tests.bench.programs import START_SECONDS, Failed, Program, program
from tests.interop.dht_network import PREFIX, network
from tests.tools import PT

HEADING = "## From start to the first byte"
NODES = 40
_ID = "bench-the-meeting-of-two"
_POLL = 0.005  # seconds between tries at a port that is not open yet
_TEXT = """\
{heading}

{date}, {machine}. The provider is up; the time runs from the start of the `pt bind` process (Python, libp2p and the
id's stretching take most of a second of it) to the first byte of the reply, with {runs} runs each, in turn.

| seconds | median | slowest |
| --- | ---: | ---: |
{rows}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How two ends find each other: options for both, and for the consumer given the provider's address."""

    name: str
    shared: tuple[str, ...]
    named: bool = False
    took: list[float] = field(default_factory=list)


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def _site() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _pt(home: Path, *arguments: str) -> AbstractContextManager[Program]:
    shared = ("--json", "--p2p-listen", "/ip4/127.0.0.1/tcp/0")
    variables = {"PT_HOME": str(home), "PT_ID": _ID, "PT_DHT": "0", "PT_PORTMAP": "0"}
    return program([*PT, *shared, *arguments], variables)


@contextmanager
def _ways() -> Iterator[list[Way]]:
    """Open all that the two can meet by: a rendezvous point and a DHT of our own."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        relay = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-dht")
        via = str(stack.enter_context(_pt(home, *relay)).event("relay")["via"])
        entry = stack.enter_context(network(NODES)).entry
        yield [
            Way("an address, `--peer`", ("--no-mdns",), named=True),
            Way("the local network, mDNS", ("--mdns",)),
            Way("a rendezvous point, `--via`", ("--no-mdns", "--via", via)),
            Way(
                f"a DHT of {NODES} nodes",
                ("--no-mdns", "--dht", "--dht-prefix", PREFIX, "--bootstrap", entry),
            ),
        ]


def _first_byte(home: Path, way: Way, address: str) -> float:
    """Start a consumer and give the seconds until the reply begins."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    peer = ("--peer", address) if way.named else ()
    began = time.monotonic()
    with _pt(home, *way.shared, "--wait", str(START_SECONDS), "bind", "--port", str(port), *peer):
        client = _connected(port, began + START_SECONDS)
        with client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if not client.recv(1):
                raise Failed(f"no reply by {way.name}")
            return time.monotonic() - began


def _connected(port: int, deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)


def measure(runs: int) -> list[Way]:
    """Measure every way so often, in turn."""
    with _ways() as ways, _site() as site, ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = []
        for number, way in enumerate(ways):
            command = ("tcp", "--target", f"127.0.0.1:{site}")
            provider = stack.enter_context(_pt(home / f"provider {number}", *way.shared, *command))
            addresses.append(str(provider.event("ready")["addresses"][0]))
        for turn in range(runs + 1):
            for number, way in enumerate(ways):
                took = _first_byte(home / f"consumer {number}", way, addresses[number])
                print(f"{turn}/{runs} {way.name}: {took:.2f} s", flush=True)
                if turn:  # the first one finds records that are still on their way, and files to be made
                    way.took.append(took)
    return ways


def section(ways: Sequence[Way], runs: int) -> str:
    """Write our part of the page."""
    rows = [f"| {way.name} | {statistics.median(way.took):.2f} | {max(way.took):.2f} |" for way in ways]
    date = datetime.now(UTC).date().isoformat()
    return _TEXT.format(heading=HEADING, date=date, machine=machine(), runs=runs, rows="\n".join(rows))


def main(arguments: Sequence[str]) -> int:
    """Measure, and write our part of the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.meeting", description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    text = section(measure(options.runs), options.runs)
    print(text)
    page.put(HEADING, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
