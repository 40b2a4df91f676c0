"""The reactor: an error of a socket that waits for nothing else is told; a hangup, before which there may be data, is none."""

import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from peertunnel.transport import reactor as module
from peertunnel.transport.reactor import ERROR, READ, Reactor
from tests.node.pair import reset, until

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="elsewhere the next read tells")


class Reader:
    """Keeps what it reads, and why it had to give up."""

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.data = b""
        self.errors: list[Exception] = []
        self.sock = sock
        self.registration = reactor.register(sock, self)

    def on_readable(self) -> None:
        self.data += self.sock.recv(64)
        self.registration.replace(READ, ERROR)

    def on_writable(self) -> None:
        raise AssertionError

    def on_failure(self, error: Exception) -> None:
        self.errors.append(error)


@asynccontextmanager
async def connection(
    poller: Callable[[], object] = module._Poller,
) -> AsyncIterator[tuple[Reactor, Reader, trio.SocketStream]]:
    """Run a reactor with one end of a TCP connection, which waits for an error; the other end is trio's."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setattr(module, "_Poller", poller)
        other = await trio.open_tcp_stream(*server.getsockname())
        one, _ = server.accept()
        one.setblocking(False)
        reactor = Reactor()
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            with one:
                reader = Reader(reactor, one)
                reader.registration.wait_for(ERROR)
                yield reactor, reader, other
                reader.registration.wait_for(0)
            nursery.cancel_scope.cancel()


@needs_epoll
async def test_a_reset_is_told() -> None:
    async with connection() as (_, reader, other):
        await other.send_all(b"is left alone")
        reset(other)
        await until(lambda: reader.errors)
        assert isinstance(reader.errors[0], ConnectionResetError)
        assert not reader.data


@needs_epoll
async def test_a_hangup_is_no_error() -> None:
    async with connection() as (reactor, reader, other):
        await other.send_all(b"the last words")
        await other.send_eof()
        reader.sock.shutdown(socket.SHUT_WR)
        await until(lambda: not reactor._watched)  # it would be told again and again
        assert not reader.errors
        reader.registration.add(READ)
        await until(lambda: reader.data)
        assert reader.data == b"the last words"


async def test_where_the_system_tells_no_errors_reading_goes_on_all_the_same() -> None:
    async with connection(module._Selector) as (_, reader, other):
        for data in (b"one", b"two"):
            reader.data = b""
            await other.send_all(data)
            reader.registration.replace(ERROR, READ)
            await until(lambda: reader.data)
            assert reader.data == data


class Hopeless(Reader):
    """Fails, and fails to give up."""

    def on_readable(self) -> None:
        self.registration.remove(READ)
        raise RuntimeError("on purpose")

    def on_failure(self, error: Exception) -> None:
        super().on_failure(error)
        raise RuntimeError("on purpose, too")


async def test_who_fails_to_give_up_harms_nobody_else() -> None:
    async with connection() as (reactor, reader, other):
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            hopeless = Hopeless(reactor, one)
            hopeless.registration.wait_for(READ)
            two.send(b"?")
            await until(lambda: hopeless.errors)
            reader.registration.wait_for(READ)
            await other.send_all(b"still here")
            await until(lambda: reader.data)


@needs_epoll
async def test_who_fails_to_give_up_at_a_reset_harms_nobody_else_either() -> None:
    async with connection() as (reactor, reader, other):
        with socket.create_server(("127.0.0.1", 0)) as server:
            third = await trio.open_tcp_stream(*server.getsockname())
            one, _ = server.accept()
        with one:
            one.setblocking(False)
            hopeless = Hopeless(reactor, one)
            hopeless.registration.wait_for(ERROR)
            reset(third)
            await until(lambda: hopeless.errors)
            reader.registration.wait_for(READ)
            await other.send_all(b"still here")
            await until(lambda: reader.data)
