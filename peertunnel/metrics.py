"""Numbers for Prometheus: read when they are asked for, and served over HTTP as text."""

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

MAX_VISITORS = 16  # at a time; Prometheus comes alone
MAX_REQUEST = 8192  # bytes of a request's head; nginx's default for one of its buffers
VISIT = 5.0  # seconds for a request and its answer
_PREFIX = "peertunnel_"

Reading = Callable[[], float]
Readings = Callable[[], Mapping[tuple[str, ...], float]]
_log = logging.getLogger(__name__)


class Metrics(Collector):
    """What can be read of a running node, and of its process."""

    def __init__(self) -> None:
        self._gauges: list[tuple[str, str, Reading]] = []
        self._counters: list[tuple[str, str, tuple[str, ...], Readings]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def gauge(self, name: str, help: str, read: Reading) -> None:
        """Tell a number that goes up and down."""
        self._gauges.append((name, help, read))

    def counter(self, name: str, help: str, labels: tuple[str, ...], read: Readings) -> None:
        """Tell numbers that only grow, one for each combination of labels that has occurred."""
        self._counters.append((name, help, labels, read))

    def collect(self) -> Iterator[Metric]:
        """Read all numbers, for Prometheus' library."""
        for name, help, read in self._gauges:
            yield GaugeMetricFamily(_PREFIX + name, help, value=read())
        for name, help, labels, read_all in self._counters:
            family = CounterMetricFamily(_PREFIX + name, help, labels=labels)
            for values, count in sorted(read_all().items()):
                family.add_metric(values, count)
            yield family

    async def serve(self, listeners: Iterable[socket.socket]) -> None:
        """Answer GET /metrics on listening sockets, of which there is one or more, until cancelled; closes none."""
        wrapped = [trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup())) for sock in listeners]
        visitors = trio.CapacityLimiter(MAX_VISITORS)

        async def visit(stream: trio.SocketStream) -> None:
            try:
                visitors.acquire_nowait()
            except trio.WouldBlock:
                return
            try:
                with trio.move_on_after(VISIT):
                    await self._answer(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it went away
            except Exception:  # noqa: BLE001  a task boundary: numbers are not worth a tunnel
                _log.exception("a page of metrics failed")
            finally:
                visitors.release()

        await trio.serve_listeners(visit, wrapped)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            head += data
            if not data or len(head) > MAX_REQUEST:
                return
        method, _, rest = head.partition(b" ")
        path = rest.split(maxsplit=1)[0].partition(b"?")[0] if rest.strip() else b""
        if path != b"/metrics":
            await stream.send_all(_response("404 Not Found", "text/plain", b"See /metrics.\n"))
        elif method not in (b"GET", b"HEAD"):
            await stream.send_all(_response("405 Method Not Allowed", "text/plain", b"GET it.\n"))
        else:
            page = _response("200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry))
            await stream.send_all(page if method == b"GET" else page.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
