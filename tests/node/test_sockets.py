"""Accepting and closing, on real sockets of the loopback interface."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint, UnixEndpoint


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


async def test_every_listener_is_served_and_callers_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listeners = await sockets.listen(TcpEndpoint(None, 0)) + await sockets.listen(UnixEndpoint(path))
    accepted, pick = trio.open_memory_channel[tuple[socket.socket, str]](10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sockets.serve, listeners, lambda sock, name: accepted.send_nowait((sock, name)))
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
        nursery.cancel_scope.cancel()
    sockets.close_listeners(listeners)


async def test_connections_are_accepted_in_batches_that_let_others_run() -> None:
    (listener,) = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    callers = 3 * sockets.ACCEPT_BATCH
    clients = [socket.create_connection(("127.0.0.1", port_of(listener))) for _ in range(callers)]
    turn, turns = 0, list[int]()
    all_served = trio.Event()

    def handle(sock: socket.socket, name: str) -> None:
        sock.close()
        turns.append(turn)
        if len(turns) == callers:
            all_served.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sockets.serve, [listener], handle)
        while not all_served.is_set():
            turn += 1
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    sizes = [turns.count(turn) for turn in set(turns)]
    assert len(sizes) <= 3
    assert (
        max(sizes) <= 2 * sockets.ACCEPT_BATCH
    )  # the order within a turn of the scheduler is left to chance
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
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sockets.serve, [listener], handle)
                with trio.fail_after(10):
                    await served.wait()
                nursery.cancel_scope.cancel()


async def test_a_broken_listener_is_no_silence() -> None:
    with socket.socket() as listener, pytest.RaisesGroup(OSError):
        listener.bind(("127.0.0.1", 0))  # without listen(), accept() is EINVAL
        listener.setblocking(False)
        await sockets.serve([listener], lambda sock, name: None)


STARVE = """
import resource, socket, sys, trio, trio.testing
from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint

async def main():
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
        nursery.start_soon(sockets.serve, [listener], handle, warnings.append)
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


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


async def test_close_is_a_clean_end() -> None:
    ours, theirs = tcp_pair()
    with theirs:
        ours.send(b"last words")
        sockets.close(ours)
        assert theirs.recv(100) == b"last words" and theirs.recv(100) == b""


async def test_abort_is_a_reset() -> None:
    ours, theirs = tcp_pair()
    with theirs:
        sockets.abort(ours)
        with pytest.raises(ConnectionResetError):
            theirs.recv(100)


async def test_what_a_killed_program_leaves_is_a_reset() -> None:
    (listener,) = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    accepted, pick = trio.open_memory_channel[socket.socket](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sockets.serve, [listener], lambda sock, name: accepted.send_nowait(sock))
        dialled = await sockets.dial(TcpEndpoint("127.0.0.1", port_of(listener)), 10)
        (await pick.receive()).close()  # as the system does it
        dialled.settimeout(10)
        with pytest.raises(ConnectionResetError):
            dialled.recv(1)
        dialled = await sockets.dial(TcpEndpoint("127.0.0.1", port_of(listener)), 10)
        with await pick.receive() as theirs:
            dialled.close()
            with pytest.raises(ConnectionResetError):
                theirs.recv(1)
        nursery.cancel_scope.cancel()
    sockets.close_listeners([listener])


async def test_dialled_sockets_close_cleanly_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = await sockets.dial(TcpEndpoint("127.0.0.1", port_of(listener)), 10)
        theirs, _ = listener.accept()
        with theirs:
            sockets.close(dialled)
            assert theirs.recv(1) == b""


async def test_closing_wakes_who_waits_and_is_done_once() -> None:
    for end in (sockets.close, sockets.abort):
        ours, theirs = tcp_pair()
        with theirs:
            async with trio.open_nursery() as nursery:

                async def wait(sock: socket.socket = ours) -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(sock.fileno())

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                end(ours)
        end(ours)
        assert ours.fileno() == -1


async def test_unix_sockets_close_and_abort_too() -> None:
    for end in (sockets.close, sockets.abort):
        ours, theirs = socket.socketpair()
        with theirs:
            end(ours)
            assert theirs.recv(1) == b""


async def test_listeners_clean_up_after_themselves(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listeners = await sockets.listen(UnixEndpoint(str(path))) + await sockets.listen(TcpEndpoint(None, 0))
    sockets.close_listeners(listeners)
    assert not path.exists()
    assert {listener.fileno() for listener in listeners} == {-1}
    sockets.close_listeners(listeners)


async def test_a_socket_file_that_is_another_program_s_by_now_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    ours = await sockets.listen(UnixEndpoint(str(path)))
    os.unlink(path)
    theirs = await sockets.listen(UnixEndpoint(str(path)))
    sockets.close_listeners(ours)
    assert path.is_socket()
    sockets.close_listeners(theirs)
    assert not path.exists()
    gone = await sockets.listen(UnixEndpoint(str(path)))
    os.unlink(path)
    sockets.close_listeners(gone)
