"""Metrics over HTTP."""

from pathlib import Path

import trio

from peertunnel import sockets
from peertunnel.endpoints import UnixEndpoint
from peertunnel.metrics import Metrics


async def test_a_unix_socket_is_served_and_goes_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    pages = await sockets.listen(UnixEndpoint(str(path)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Metrics().serve, pages)
        async with await trio.open_unix_socket(str(path)) as visit:
            await visit.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            page = b"".join([data async for data in visit])
        nursery.cancel_scope.cancel()
    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    sockets.close_listeners(pages)
    assert not path.exists()
