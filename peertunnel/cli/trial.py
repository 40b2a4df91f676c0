"""The five steps of `pt demo`: three programs and two downloads."""

import hashlib
import os
import re
import secrets
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from urllib.request import ProxyHandler, build_opener

from peertunnel.cli.child import Child, ChildError, no_interruption
from peertunnel.cli.results import Stepped
from peertunnel.errors import PeerTunnelError
from peertunnel.events import Emit

MB = 10**6  # bytes
SIZE = 64 * 2**20  # bytes of the file
CHUNK = 2**20  # bytes read at a time
PATIENCE = 30.0  # seconds for all the programs to meet, which takes two or three
PAGE = b"<!doctype html><title>peertunnel</title><p>This page came through a tunnel.\n"


_open = build_opener(ProxyHandler({})).open  # a proxy would look for the page on another machine


class TrialError(PeerTunnelError):
    """What came out of the tunnel is not what went in."""

    hint = "Please report it, with the output of pt info."


def run_trial(emit: Emit, is_heard: bool) -> None:
    """Send a page and a file of 64 MiB through a tunnel on this machine, and tell of each step.

    is_heard: whether to show what the programs write on stderr.

    Raises ChildError or TrialError at the first step that fails; the programs are ended in any case.
    """
    start = time.monotonic()
    numbers = iter(range(1, 6))

    def tell(message: str) -> None:
        emit(Stepped(next(numbers), message, round(time.monotonic() - start, 1)))

    with TemporaryDirectory(prefix="peertunnel-demo-") as folder, ExitStack() as running:
        digest = _build_site(Path(folder, "site"))
        with no_interruption():
            web = running.enter_context(_web_server(Path(folder, "site"), is_heard))
        found = re.search(r"port (\d+)", web.line(start + PATIENCE))
        if found is None:
            raise ChildError("The web server did not say its port.")
        tell("A web server has a page and a file of 64 MiB.")

        name = secrets.token_urlsafe()
        provide, consume = ("tcp", "--port", found[1]), ("bind", "--port", "0")
        with no_interruption():
            provider = running.enter_context(_pt("The provider", provide, Path(folder, "a"), name, is_heard))
            consumer = running.enter_context(_pt("The consumer", consume, Path(folder, "b"), name, is_heard))
        provider.event("ready", start + PATIENCE)
        tell("A provider offers the web server under a random name.")
        local = consumer.event("listening", start + PATIENCE)["local"]
        path = consumer.event("path", start + PATIENCE)["path"]
        tell(f"A consumer has found the provider by that name, over mDNS; the path is {path}.")

        _fetch_page(f"http://{local}/")
        tell("The page came through the tunnel.")
        rate = _fetch_file(f"http://{local}/file", digest)
        tell(f"The file came through the tunnel at {rate / MB:.0f} MB/s, and its SHA-256 is right.")


def _build_site(folder: Path) -> bytes:
    """Write the page and the file, and give the file's SHA-256."""
    folder.mkdir()
    (folder / "index.html").write_bytes(PAGE)
    digest = hashlib.sha256()
    with (folder / "file").open("wb") as file:
        for _ in range(SIZE // CHUNK):
            chunk = os.urandom(CHUNK)
            digest.update(chunk)
            file.write(chunk)
    return digest.digest()


def _web_server(folder: Path, is_heard: bool) -> Child:
    module = ("http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder))
    return Child("The web server", module, dict(os.environ), is_heard)


def _pt(name: str, command: tuple[str, ...], home: Path, tunnel_id: str, is_heard: bool) -> Child:
    """Start pt with an identity of its own, on loopback only: the demo is nobody else's business."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PT_")}
    module = (
        "peertunnel",
        "--json",
        "--no-dht",
        "--no-portmap",
        "--p2p-listen",
        "/ip4/127.0.0.1/tcp/0",
        *command,
    )
    return Child(name, module, env | {"PT_HOME": str(home), "PT_ID": tunnel_id}, is_heard)


def _fetch_page(url: str) -> None:
    with _get(url) as answer:
        if answer.read() != PAGE:
            raise TrialError("Another page came out of the tunnel than went in.")


def _fetch_file(url: str, wanted: bytes) -> float:
    """Fetch the file, compare its SHA-256, and give the rate in bytes a second."""
    digest, size, start = hashlib.sha256(), 0, time.monotonic()
    with _get(url) as answer:
        while chunk := answer.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    seconds = time.monotonic() - start
    if digest.digest() != wanted:
        raise TrialError(f"{size} bytes came out of the tunnel, and they are not the {SIZE} that went in.")
    return size / seconds


def _get(url: str) -> IO[bytes]:
    try:
        answer: IO[bytes] = _open(url, timeout=PATIENCE)
    except OSError as error:
        raise ChildError(f"The web server can't be reached through the tunnel: {error}.") from None
    return answer
