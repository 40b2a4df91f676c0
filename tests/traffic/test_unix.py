"""Unix sockets at both ends of a tunnel, and clients like netcat, which close one way and read on."""

import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.node.pair import Handler, receive_all
from tests.tools import need
from tests.traffic.processes import consumer, forwarding, nobody, run
from tests.traffic.streams import MIB, expect, noise, send

PATIENCE = 30.0  # seconds for what must happen, on a busy machine


async def answer_at_the_end(stream: trio.SocketStream) -> None:
    """Send everything back once the client has closed its side."""
    await send(stream, await receive_all(stream))


async def answer_from_the_start(stream: trio.SocketStream) -> None:
    """Close our side first, and take what still comes."""
    await send(stream, b"greeting")
    assert await receive_all(stream) == b"late"


@asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[None]:
    """Serve a unix socket."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(os.fspath(path))
    sock.listen(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(sock)])
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def joined(home: Path, handler: Handler) -> AsyncIterator[Path]:
    """Join two unix sockets by a tunnel, a server behind the far one; give the near one."""
    server, local = home / "server", home / "local"
    async with (
        serving(server, handler),
        forwarding(home, f"unix:{server}", consume=("--listen", f"unix:{local}")) as tunnel,
    ):
        assert tunnel.local == f"unix:{local}"
        yield local


@pytest.fixture
def socat() -> list[str]:
    """A client like netcat: it closes its side at the end of its input, and waits for the end of the answer."""
    return [need("socat"), "-t", str(PATIENCE), "-"]


async def test_bytes_and_ends_pass_between_unix_sockets(tmp_path: Path, socat: list[str]) -> None:
    data = noise(1, 16 * MIB)
    async with joined(tmp_path, answer_at_the_end) as local:
        with trio.fail_after(PATIENCE):
            client = await trio.open_unix_socket(os.fspath(local))
            async with client, trio.open_nursery() as nursery:
                nursery.start_soon(send, client, data)
                await expect(client, data)
            assert await run([*socat, f"UNIX-CONNECT:{local}"], stdin=b"question") == b"question"


async def test_a_server_may_close_its_side_first(tmp_path: Path) -> None:
    async with joined(tmp_path, answer_from_the_start) as local:
        with trio.fail_after(PATIENCE):
            async with await trio.open_unix_socket(os.fspath(local)) as client:
                await expect(client, b"greeting")
                await send(client, b"late")


async def test_netcat_like_clients_get_the_whole_answer(tmp_path: Path, socat: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer_at_the_end, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        async with forwarding(tmp_path, f"127.0.0.1:{listener.socket.getsockname()[1]}") as tunnel:
            for host in ("127.0.0.1", "[::1]"):
                for size in (0, 8, 8 * MIB):
                    data = noise(1, size)
                    assert await run([*socat, f"TCP:{host}:{tunnel.port}"], stdin=data) == data
        nursery.cancel_scope.cancel()


async def test_a_unix_socket_is_private_replaced_when_dead_and_removed(tmp_path: Path) -> None:
    local = tmp_path / "local"
    listen = consumer(tmp_path, "--listen", f"unix:{local}")
    async with listen(nobody()) as killed:
        await killed.event("listening")
        assert stat.S_IMODE(local.stat().st_mode) == 0o600
        killed.process.kill()
    assert local.is_socket()
    async with listen(nobody()) as stopped:
        await stopped.event("listening")
        stopped.process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE):
            await stopped.process.wait()
    assert not local.is_socket()
