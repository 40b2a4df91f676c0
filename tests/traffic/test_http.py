"""curl and a web server through a tunnel: connections that are kept, large bodies both ways, many at once."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from tests.tools import need
from tests.traffic.processes import Forwarding, forwarding, lasting, need_all, run, until

MIB = 1 << 20
PATIENCE = 30.0  # seconds for what must happen, on a busy machine


@cache
def large() -> bytes:
    """A body of 256 MiB, no two of which are alike."""
    noise = Random(1).randbytes(MIB - 8)
    return b"".join(number.to_bytes(8) + noise for number in range(256))


class Handler(BaseHTTPRequestHandler):
    """Gives a large body, or one that is the path itself, and the digest of what is posted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(large() if self.path == "/large" else self.path.encode())

    def do_POST(self) -> None:
        digest, left = sha256(), int(self.headers["Content-Length"])
        while left:
            part = self.rfile.read(min(left, MIB))
            digest.update(part)
            left -= len(part)
        self.answer(digest.hexdigest().encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Takes a burst of connections."""

    request_queue_size = 256


@dataclass(frozen=True, slots=True)
class Web:
    """The far end of a tunnel, as a browser sees it."""

    forwarding: Forwarding

    def url(self, path: str) -> str:
        return f"http://localhost:{self.forwarding.port}{path}"

    async def curl(self, *arguments: str) -> bytes:
        return await run([need("curl"), "--silent", "--show-error", "--fail", "--noproxy", "*", *arguments])


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A web server and the tunnel to it."""
    need_all("curl")
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with lasting(
                forwarding(tmp_path_factory.mktemp("http"), f"127.0.0.1:{server.server_port}")
            ) as tunnel:
                yield Web(tunnel)
        finally:
            server.shutdown()
            thread.join()


async def test_a_connection_is_kept_for_many_requests(web: Web) -> None:
    before = len(web.forwarding.consumer.past("tunnel-opened"))
    urls = [web.url(f"/{number}") for number in range(20)]
    printed = await web.curl("--write-out", " %{num_connects}\n", *urls)
    assert printed.decode().split("\n")[:-1] == ["/0 1", *(f"/{number} 0" for number in range(1, 20))]
    assert await until(lambda: len(web.forwarding.consumer.past("tunnel-opened")) > before, PATIENCE)
    assert len(web.forwarding.consumer.past("tunnel-opened")) == before + 1


async def test_a_large_download_arrives_whole(web: Web, tmp_path: Path) -> None:
    download = tmp_path / "download"
    await web.curl("--output", str(download), web.url("/large"))
    try:
        assert download.stat().st_size == len(large())
        assert sha256(download.read_bytes()).digest() == sha256(large()).digest()
    finally:
        download.unlink()


async def test_a_large_upload_arrives_whole(web: Web, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(large())
    try:
        printed = await web.curl("--upload-file", str(upload), "--request", "POST", web.url("/"))
        assert printed.decode() == sha256(large()).hexdigest()
    finally:
        upload.unlink()


async def test_many_requests_at_once_are_all_answered(web: Web, tmp_path: Path) -> None:
    many = ("--parallel", "--parallel-immediate", "--parallel-max", "100")
    await web.curl(*many, "--output", f"{tmp_path}/#1", web.url("/[1-500]"))
    for number in range(1, 501):
        assert (tmp_path / str(number)).read_text() == f"/{number}"
