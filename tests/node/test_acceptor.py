"""Accepting: every listener, whatever befalls its connections, and when file descriptors run out."""

import errno
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint, UnixEndpoint
from peertunnel.transport.acceptor import serve
from peertunnel.transport.reactor import SLICE, Reactor


@asynccontextmanager
async def serving(
    listeners: list[socket.socket], handler: Callable[[socket.socket, str], None]
) -> AsyncIterator[Reactor]:
    """Accept connections with a reactor, which is given, until the block ends."""
    reactor = Reactor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        async with trio.open_nursery() as accepting:
            accepting.start_soon(serve, reactor, listeners, handler)
            yield reactor
            accepting.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def test_every_listener_is_served_and_callers_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listeners = await sockets.listen(TcpEndpoint(None, 0)) + await sockets.listen(UnixEndpoint(path))
    accepted, pick = trio.open_memory_channel[tuple[socket.socket, str]](10)
    async with serving(listeners, lambda sock, name: accepted.send_nowait((sock, name))):
        for listener in listeners:
            with socket.socket(listener.family) as client:
                client.connect(listener.getsockname())
                sock, name = await pick.receive()
                expected = f"unix:{path}" if listener.family == socket.AF_UNIX else sockets.local_name(client)
                assert name == expected
                assert not sock.getblocking()
                if listener.family != socket.AF_UNIX:
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                sockets.close(sock)
                assert client.recv(1) == b""
    sockets.close_listeners(listeners)


async def test_others_run_while_many_connect() -> None:
    (listener,) = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
    turn, turns = 0, list[int]()
    all_served = trio.Event()

    def handle(sock: socket.socket, name: str) -> None:
        sock.close()
        turns.append(turn)
        busy_until = time.perf_counter() + SLICE / 5
        while time.perf_counter() < busy_until:
            pass
        if len(turns) == len(clients):
            all_served.set()

    async with serving([listener], handle):
        while not all_served.is_set():
            turn += 1
            await trio.lowlevel.checkpoint()
    assert max(turns.count(turn) for turn in set(turns)) <= 10
    for sock in [listener, *clients]:
        sock.close()


async def test_what_many_connections_give_is_sent_together() -> None:
    (listener,) = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
    round_of: list[int] = []
    rounds, all_served = 0, trio.Event()

    def handle(sock: socket.socket, name: str) -> None:
        sock.close()
        round_of.append(rounds)
        reactor.afterwards(end)

    def end() -> None:
        nonlocal rounds
        rounds = len(round_of)
        if rounds == len(clients):
            all_served.set()

    async with serving([listener], handle) as reactor:
        await all_served.wait()
    assert len(set(round_of)) < len(clients)
    for sock in [listener, *clients]:
        sock.close()


async def test_a_connection_lost_in_the_queue_does_not_stop_the_others() -> None:
    class Unlucky(socket.socket):
        losses: list[int]

        def accept(self) -> tuple[socket.socket, object]:
            if self.losses:
                raise OSError(self.losses.pop(), "lost")
            return super().accept()

    served = trio.Event()

    def handle(sock: socket.socket, name: str) -> None:
        sock.close()
        served.set()

    with Unlucky() as listener:
        listener.losses = [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN]
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()):
            async with serving([listener], handle):
                with trio.fail_after(10):
                    await served.wait()


async def test_accepting_may_end_while_a_connection_comes() -> None:
    for _ in range(50):
        listeners = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
        async with serving(listeners, lambda sock, name: sock.close()):
            await trio.testing.wait_all_tasks_blocked()
            with socket.create_connection(listeners[0].getsockname()):
                await trio.lowlevel.checkpoint()
        sockets.close_listeners(listeners)


async def test_a_broken_listener_is_no_silence() -> None:
    with socket.socket() as listener, pytest.RaisesGroup(OSError, flatten_subgroups=True):
        listener.bind(("127.0.0.1", 0))  # without listen(), accept() is EINVAL
        listener.setblocking(False)
        async with serving([listener], lambda sock, name: None):
            await trio.sleep_forever()


STARVE = """
import resource, socket, sys, trio, trio.testing
from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint
from peertunnel.transport.acceptor import serve
from peertunnel.transport.reactor import Reactor

async def main():
    reactor = Reactor()
    (listener,) = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(10)]
    served, open_now, warnings = 0, [], []

    def handle(sock, name):
        nonlocal served
        served += 1
        open_now.append(sock)

    highest = clients[-1].fileno()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        nursery.start_soon(serve, reactor, [listener], handle, warnings.append)
        await trio.sleep(10)  # of a clock that jumps, if everything waits: with a spinning task, never
        assert served == 3, served
        while open_now:
            open_now.pop().close()
            await trio.sleep(1)
        assert served == 10, served
        (warning,) = warnings
        assert "have to wait: too many open files" in warning, warning
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        clients.append(socket.create_connection(listener.getsockname()))
        await trio.sleep(1)
        clients.append(socket.create_connection(listener.getsockname()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        await trio.sleep(1)
        assert served == 11 and warnings == [warning, warning], "a new shortage is told anew"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        nursery.cancel_scope.cancel()

trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


def test_running_out_of_file_descriptors_neither_spins_nor_loses_anyone() -> None:
    subprocess.run([sys.executable, "-c", STARVE], check=True, timeout=60)
