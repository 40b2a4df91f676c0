"""Handshakes that peers have begun: so many at a time, of which the longest makes room for those that wait."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

MAX_HANDSHAKES = 32  # at a time, which keeps each one short
HANDSHAKE_PATIENCE = 2.0  # seconds that one keeps its place when others wait: strangers lock out nobody


class Handshakes:
    """The handshakes that are under way."""

    def __init__(self) -> None:
        self._running: dict[trio.CancelScope, float] = {}  # and when they began, the oldest first
        self._freed = trio.Event()

    @property
    def free(self) -> int:
        """How many more may begin now."""
        return MAX_HANDSHAKES - len(self._running)

    async def make_room(self) -> None:
        """Wait until another one may begin, if need be by ending the one that has taken longest; for one at a time."""
        while self.free <= 0:
            oldest, began = next(iter(self._running.items()))
            self._freed = trio.Event()
            with trio.move_on_at(began + HANDSHAKE_PATIENCE) as patience:
                await self._freed.wait()
            if patience.cancelled_caught:
                oldest.cancel()
                await self._freed.wait()

    def begin(self) -> trio.CancelScope:
        """Take a place; `run` must follow."""
        place = trio.CancelScope()
        self._running[place] = trio.current_time()
        return place

    @contextmanager
    def run(self, place: trio.CancelScope) -> Iterator[None]:
        """Do a handshake in its place; raises TooSlowError if it had to make room."""
        try:
            with place:
                yield
        finally:
            del self._running[place]
            self._freed.set()
        if place.cancelled_caught:
            raise trio.TooSlowError
