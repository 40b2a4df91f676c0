"""The reactor and trio's tasks share one thread: messages without end hold nobody up for long, and pauses are waited out."""

import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from peertunnel.transport import reactor as module
from peertunnel.transport.reactor import READ, Reactor

PATIENCE = 10.0  # seconds


class Player:
    """Plays a byte back as soon as it comes."""

    def __init__(self, sock: socket.socket, reactor: Reactor, gives_work: bool = False) -> None:
        sock.setblocking(False)
        self.count = 0
        self._gives_work = gives_work
        self._reactor = reactor
        self._sock = sock
        self.registration = reactor.register(sock, self)
        self.registration.wait_for(READ)

    def on_readable(self) -> None:
        self.count += 1
        self._sock.send(self._sock.recv(1))
        if self.count % 1000 == 0 and self._gives_work:
            self._reactor.yield_soon()

    def on_writable(self) -> None:
        """Never asked for."""

    def on_failure(self, error: Exception) -> None:
        raise error


@asynccontextmanager
async def ping_pong(gives_work: bool = False) -> AsyncIterator[None]:
    """Run a reactor in which the next message is always there at once."""
    reactor = Reactor()
    one, other = socket.socketpair()
    with one, other:
        players = Player(one, reactor, gives_work), Player(other, reactor)
        one.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            yield
            nursery.cancel_scope.cancel()
        for player in players:
            assert player.count
            player.registration.wait_for(0)


async def test_a_task_whose_time_has_come_gets_its_turn() -> None:
    with trio.fail_after(PATIENCE):
        async with ping_pong():
            for _ in range(20):
                await trio.sleep(0.002)


async def test_a_task_whose_socket_is_ready_gets_its_turn() -> None:
    with trio.fail_after(PATIENCE):
        one, other = trio.socket.socketpair()
        with one, other:
            async with ping_pong():
                await other.send(b"x")
                assert await one.recv(1) == b"x"


async def test_a_task_that_was_given_something_to_do_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", math.inf)
    with trio.fail_after(PATIENCE):
        async with ping_pong(gives_work=True):
            for _ in range(20):
                await trio.lowlevel.checkpoint()


async def test_a_long_pause_is_waited_out_asleep() -> None:
    reactor = Reactor()
    one, other = socket.socketpair()
    with one, other:
        player = Player(one, reactor)
        other.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            await trio.sleep(0.01)
            began = time.process_time()
            await trio.sleep(0.3)
            assert time.process_time() - began < 0.05
            nursery.cancel_scope.cancel()
        player.registration.wait_for(0)
