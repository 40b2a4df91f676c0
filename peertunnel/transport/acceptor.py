"""Accepting local connections: plain calls of the reactor, without a task's turn for each of them."""

import errno
import logging
import math
import os
import socket
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import trio

from peertunnel import sockets
from peertunnel.transport.reactor import READ, SLICE, Reactor

STARVED_PAUSE = 0.1  # seconds; as trio.serve_listeners waits when file descriptors run out
_OVER = 0.5  # seconds without a shortage, after which the next one is a new one

# accept() also passes on what befell a connection while it waited (accept(2), "Error handling").
_LOST_IN_QUEUE = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ETIMEDOUT}
)
_STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Handler = Callable[[socket.socket, str], None]
_log = logging.getLogger(__name__)


async def serve(
    reactor: Reactor,
    listeners: Iterable[socket.socket],
    handler: Handler,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Accept until cancelled: handler gets each non-blocking socket, and the name of who connected.

    warn gets a sentence when file descriptors or memory run out; new connections then wait in the queue.
    """
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_Acceptor(reactor, listener, handler, warn).run)


class _Acceptor:
    """One listener in the reactor, which calls it for a slice's connections at a time: others get their turn in between."""

    def __init__(
        self,
        reactor: Reactor,
        listener: socket.socket,
        handler: Handler,
        warn: Callable[[str], None] | None,
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        # Asked for with each connection, the family costs as much as to accept one.
        self._family = int(listener.family)
        # Who connects to a unix socket has no name of its own.
        self._name = sockets.local_name(listener) if self._family == socket.AF_UNIX else ""
        self._handler = handler
        self._warn = warn
        self._last_shortage = -math.inf  # seconds, on trio's clock
        self._stopped = trio.Event()  # a shortage or a failure: nothing is accepted for now
        self._failure: Exception | None = None

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()  # whoever has been cancelled before finds the listener closed
        self._registration = self._reactor.register(self._listener, self)
        try:
            while self._failure is None:
                self._registration.add(READ)
                await self._stopped.wait()
                self._stopped = trio.Event()
                # The connection stays in the queue and the listener readable: without a pause this would spin.
                await trio.sleep(STARVED_PAUSE)
            raise self._failure
        finally:
            self._registration.wait_for(0)

    def on_readable(self) -> None:
        """Accept what has connected: what many connections give is sent together."""
        end = perf_counter() + SLICE
        while perf_counter() < end:
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _STARVED:
                    self._starve(error)
                elif error.errno not in _LOST_IN_QUEUE:
                    self.on_failure(error)
                return
            self._take(sock, address)

    def _take(self, sock: socket.socket, address: Any) -> None:
        try:
            sock.setblocking(False)
            self._handler(sock, self._name or sockets.name(self._family, address))
        except Exception:  # noqa: BLE001  a task boundary: it ends this connection, and not the listener
            _log.exception("a connection was not served")
            sockets.end(sock, in_order=False)

    def on_writable(self) -> None:
        """Never asked for."""

    def on_failure(self, error: Exception) -> None:
        """Let whoever serves know."""
        self._failure = error
        self._stop()

    def _starve(self, shortage: OSError) -> None:
        last, self._last_shortage = self._last_shortage, trio.current_time()
        if self._warn and self._last_shortage - last > _OVER:
            reason = os.strerror(shortage.errno or 0).lower()
            self._warn(f"New connections to {sockets.local_name(self._listener)} have to wait: {reason}.")
        self._stop()

    def _stop(self) -> None:
        self._registration.wait_for(0)
        self._stopped.set()
        self._reactor.yield_soon()
