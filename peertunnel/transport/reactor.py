"""The reactor: one set of sockets for the whole data path, watched by one trio task.

Trio rearms and reschedules for every event of every socket; measured, that is more than half of what a small message
costs. Here the sockets of all connections and tunnels are in one selector of their own, trio waits for that selector
only, and what is ready is handled by plain calls. While messages keep coming the reactor waits for the next one
itself, briefly: a trio task that has something to do makes it yield at once, any other is held up by a millisecond.
"""

import logging
import select
import selectors
import socket
from collections import deque
from collections.abc import Callable
from os import sched_yield, strerror
from time import perf_counter
from typing import ClassVar, Protocol

import trio

SLICE = 0.002  # seconds of handling events before trio's tasks get a turn: well below what a person notices
LINGER = 0.001  # seconds to wait for the next event before trio waits for it; the least that epoll knows
# Seconds to wait awake, where the last wait was shorter: on one machine replies come faster than a sleeper is woken.
AWAKE = 0.00015
READ, WRITE, ERROR = 1, 4, 8  # as in epoll
_MAX_EVENTS = 64  # sockets handled between two looks at the clock
_log = logging.getLogger(__name__)


class Handler(Protocol):
    """Owns a socket in the reactor; none of its methods waits."""

    def on_readable(self) -> None:
        """Read: there is data, an end or an error."""
        ...

    def on_writable(self) -> None:
        """Write on: there is room, or an error."""
        ...

    def on_failure(self, error: Exception) -> None:
        """Give up: one of the other two has raised something unforeseen, or the socket, of which only an error is watched, has one."""
        ...


class Flusher(Protocol):
    """Has gathered something to send; see `Reactor.soon`."""

    def flush_now(self) -> None:
        """Send it; never waits."""
        ...

    def on_failure(self, error: Exception) -> None:
        """Give up: the other has raised something unforeseen."""
        ...


class _Epoll:
    """Linux's own, bare: half the cost of the selectors module's."""

    def __init__(self) -> None:
        epoll = select.epoll()
        self.fileno = epoll.fileno
        self.register = epoll.register
        self.modify = epoll.modify
        self.unregister = epoll.unregister
        self.poll = epoll.poll


class _Selector:
    """Whatever else the system has: kqueue on macOS and the BSDs. An error is seen with the next read or write only."""

    _EVENTS: ClassVar = {READ: selectors.EVENT_READ, WRITE: selectors.EVENT_WRITE, READ | WRITE: 3}
    _READY: ClassVar = {events: interest for interest, events in _EVENTS.items()}

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.fileno = self._selector.fileno

    def register(self, fd: int, interest: int) -> None:
        if interest & ~ERROR:
            self._selector.register(fd, self._EVENTS[interest & ~ERROR])

    def modify(self, fd: int, interest: int) -> None:
        self.unregister(fd)
        self.register(fd, interest)

    def unregister(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, seconds: float, _most: int) -> list[tuple[int, int]]:
        return [(key.fd, self._READY[events]) for key, events in self._selector.select(seconds)]


_Poller = _Epoll if hasattr(select, "epoll") else _Selector


def _give_up(failed: Handler | Flusher, error: Exception) -> None:
    """Tell one of its own failure; another one on top harms nobody else either."""
    try:
        failed.on_failure(error)
    except Exception:  # noqa: BLE001  a task boundary: nobody is left who could be told
        _log.exception("giving up failed, too")


class Registration:
    """A socket in the reactor, and what its handler waits for: nothing at first."""

    __slots__ = ("_fd", "_handler", "_interest", "_reactor", "_sock")

    def __init__(self, reactor: "Reactor", sock: socket.socket, handler: Handler) -> None:
        self._reactor = reactor
        self._sock = sock
        self._fd = sock.fileno()
        self._handler = handler
        self._interest = 0

    def wait_for(self, interest: int) -> None:
        """Watch the socket for READ, WRITE, both or nothing (0); for an ERROR where neither is wanted."""
        before = self._interest
        if interest == before:
            return
        if not interest:
            self._interest = 0
            self._reactor.unwatch(self._fd)
        elif before:
            self._reactor.selector.modify(self._fd, interest)
        else:
            self._reactor.watch(self._fd, interest, self)
        self._interest = interest  # only now: what the system has refused need not be undone

    def close(self) -> None:
        """Watch the socket no more, and let go of the handler, which holds us: a cycle would wait for the collector."""
        self.wait_for(0)
        del self._handler

    def add(self, interest: int) -> None:
        """Watch the socket for this, too."""
        if self._interest | interest != self._interest:
            self.wait_for(self._interest | interest)

    def remove(self, interest: int) -> None:
        """Watch the socket for this no more; 0 is left alone, and a socket must not be closed before."""
        self.wait_for(self._interest & ~interest)

    def replace(self, interest: int, other: int) -> None:
        """Watch the socket for something else instead."""
        self.wait_for(self._interest & ~interest | other)

    def handle(self, ready: int) -> None:
        """Call the handler for what is ready; an error or a hangup counts as both."""
        handler = self._handler
        try:
            if self._interest == ERROR:
                self._break(handler)
            if ready & ~READ and self._interest & WRITE:
                handler.on_writable()
            if ready & ~WRITE and self._interest & READ:
                handler.on_readable()
        except Exception as error:  # noqa: BLE001  a task boundary: a handler's failure ends what it serves, no more
            _log.exception("a handler of the data path failed")
            _give_up(handler, error)

    def _break(self, handler: Handler) -> None:
        """Tell of an error. What is ready may be a hangup instead, which is none: what came before can still be read."""
        self.wait_for(0)
        if number := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            handler.on_failure(OSError(number, strerror(number)))


class Reactor:
    """Watches the sockets of the data path; `run` runs it."""

    def __init__(self) -> None:
        self.selector = _Poller()
        self._watched: dict[int, Registration] = {}
        self._must_yield = False
        self._is_handling = False
        self._is_brisk = False  # whether the last wait was a short one
        self._flushers: list[Flusher] = []
        self._afterwards: deque[Callable[[], None]] = deque()

    def register(self, sock: socket.socket, handler: Handler) -> Registration:
        """Take a non-blocking socket in; before it is closed it must wait for nothing."""
        return Registration(self, sock, handler)

    def watch(self, fd: int, interest: int, registration: Registration) -> None:
        """Watch a socket from now on."""
        self.selector.register(fd, interest)
        self._watched[fd] = registration

    def unwatch(self, fd: int) -> None:
        """Watch a socket no more, not even for what it was ready for a moment ago."""
        del self._watched[fd]
        self.selector.unregister(fd)

    def soon(self, flusher: Flusher) -> None:
        """Let it flush once all that is ready now has been handled: what many events give is sent together."""
        if self._is_handling:
            self._flushers.append(flusher)
        else:
            flusher.flush_now()

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do what nobody waits for once nothing is ready any more, or the slice is over; in the order of the calls."""
        if self._is_handling or self._afterwards:
            self._afterwards.append(work)
        else:
            work()

    def yield_soon(self) -> None:
        """Let trio's tasks run next: one of them has just got something to do."""
        self._must_yield = True

    async def run(self) -> None:
        """Handle events until cancelled."""
        fd = self.selector.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            while self._handle_events():
                await trio.lowlevel.checkpoint()

    def _handle_events(self) -> bool:
        """Handle what is ready, and what follows within a slice; return whether more is expected soon after."""
        # A task that was given something to do since may come after us in this pass: then there is no time to linger.
        may_linger = not self._must_yield
        self._must_yield = False
        poll, find = self.selector.poll, self._watched.get
        now = perf_counter()
        end = now + SLICE
        while events := poll(0, _MAX_EVENTS) or self._idle(now, may_linger):
            self._is_handling = True
            for fd, ready in events:
                if (registration := find(fd)) is not None:
                    registration.handle(ready)
            self._is_handling = False
            if self._flushers:
                self._flush()
            now = perf_counter()
            if self._must_yield or now >= end:
                self._do_the_rest()
                return not self._must_yield
        return False

    def _idle(self, now: float, may_linger: bool) -> list[tuple[int, int]]:
        """Use the time in which nothing is ready for the rest, and wait for the next events if there are none yet."""
        if self._afterwards:
            self._do_the_rest()
            if events := self.selector.poll(0, _MAX_EVENTS):
                return events
            now = perf_counter()
        return self._linger(now) if may_linger else []

    def _linger(self, began: float) -> list[tuple[int, int]]:
        """Wait for the next events: awake at first, where they come quickly, and letting others run meanwhile."""
        poll = self.selector.poll
        events: list[tuple[int, int]] = []
        if self._is_brisk:
            end = began + AWAKE
            while not events and perf_counter() < end:
                sched_yield()
                events = poll(0, _MAX_EVENTS)
        events = events or poll(LINGER, _MAX_EVENTS)
        self._is_brisk = bool(events) and perf_counter() - began < AWAKE
        return events

    def _do_the_rest(self) -> None:
        while self._afterwards:
            try:
                self._afterwards.popleft()()
            except Exception:  # noqa: BLE001  a task boundary, as in Registration.handle
                _log.exception("what comes after the data path's work failed")

    def _flush(self) -> None:
        flushers, self._flushers = self._flushers, []
        for flusher in flushers:
            try:
                flusher.flush_now()
            except Exception as error:  # noqa: BLE001  a task boundary, as in Registration.handle
                _log.exception("a connection of the data path failed")
                _give_up(flusher, error)
