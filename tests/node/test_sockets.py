"""Closing, on real sockets of the loopback interface."""

import os
import socket
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
    dialled = await sockets.dial(TcpEndpoint("127.0.0.1", port_of(listener)), 10)
    listener.accept()[0].close()  # as the system does it
    dialled.settimeout(10)
    with pytest.raises(ConnectionResetError):
        dialled.recv(1)
    dialled = await sockets.dial(TcpEndpoint("127.0.0.1", port_of(listener)), 10)
    with listener.accept()[0] as theirs:
        dialled.close()
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)
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
