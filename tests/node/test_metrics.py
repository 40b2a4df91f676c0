"""Metrics over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peertunnel import sockets
from peertunnel.endpoints import UnixEndpoint
from peertunnel.metrics import MAX_REQUEST, VISIT, Metrics

GET = b"GET /metrics HTTP/1.1\r\n\r\n"
Ask = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def serving(metrics: Metrics, path: Path) -> AsyncIterator[Ask]:
    """Serve metrics on a Unix socket; yield what sends a request there and gives the whole answer."""

    async def ask(request: bytes) -> bytes:
        async with await trio.open_unix_socket(str(path)) as visit:
            await visit.send_all(request)
            await visit.send_eof()
            with trio.fail_after(VISIT / 2):  # before the visit ends by itself
                return b"".join([data async for data in visit])

    pages = await sockets.listen(UnixEndpoint(str(path)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.serve, pages)
        yield ask
        nursery.cancel_scope.cancel()
    sockets.close_listeners(pages)


async def test_a_unix_socket_is_served_and_goes_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    async with serving(Metrics(), path) as ask:
        assert (await ask(GET)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("garbage", "answer"),
    [
        (b"\r\n\r\n", b"HTTP/1.1 404 "),
        (b"GET \r\n\r\n", b"HTTP/1.1 404 "),
        (b"\x16\x03\x01\xff \x00\xff\r\n\r\n", b"HTTP/1.1 404 "),
        (b"\xff /metrics\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /metrics HTTP/1.1\r\n", b""),
        (b"x" * (MAX_REQUEST + 1), b""),
    ],
)
async def test_garbage_ends_its_own_visit_and_nothing_else(
    garbage: bytes, answer: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Metrics(), tmp_path / "metrics") as ask:
        given = await ask(garbage)
        assert given.startswith(answer) and bool(given) == bool(answer)
        assert (await ask(GET)).startswith(b"HTTP/1.1 200 ")
    assert not caplog.records  # it is not our failure


async def test_a_request_without_end_is_not_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    async with serving(Metrics(), path), await trio.open_unix_socket(str(path)) as visit:
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(VISIT / 2):
            while True:
                await visit.send_all(b"x" * MAX_REQUEST)


async def test_a_metric_that_fails_ends_its_page_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    readings: list[float | ValueError] = [ValueError("on purpose"), 7.0]

    def read() -> float:
        if isinstance(reading := readings.pop(0), ValueError):
            raise reading
        return reading

    metrics = Metrics()
    metrics.gauge("moody", "Fails at first.", read)
    async with serving(metrics, tmp_path / "metrics") as ask:
        assert await ask(GET) == b""
        assert b"\npeertunnel_moody 7.0\n" in await ask(GET)
    assert "on purpose" in caplog.text
