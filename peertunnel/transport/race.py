"""Attempts to reach a peer, one shortly after the other, of which the first that proves to be the peer wins.

Happy Eyeballs (RFC 8305): an attempt that fails starts the next one at once, and one that has not decided yet does not
hold the others up. An attempt counts as won only after the handshake: another host behind a reused private address
must not win the race.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import trio
from multiaddr import Multiaddr

from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.upgrade import UpgradeError

ATTEMPT_DELAY = 0.1  # seconds between attempts; the least that RFC 8305, section 5 recommends
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try.

    address: where, as it was named. run: does it; raises OSError and UpgradeError. head_start: seconds that others get,
    unless all of them have failed before.
    """

    address: Multiaddr
    run: Callable[[], Awaitable[MuxedConnection]]
    head_start: float = 0.0


def failing(error: OSError) -> Callable[[], Awaitable[MuxedConnection]]:
    """Return what an attempt runs that has failed already."""

    async def run() -> MuxedConnection:
        raise error

    return run


def alternate(attempts: Iterable[tuple[int, Attempt]]) -> list[Attempt]:
    """Order attempts, each with its address family: IPv6 and IPv4 in turn."""
    found: dict[int, list[Attempt]] = {socket.AF_INET6: [], socket.AF_INET: []}
    for family, attempt in attempts:
        found[family].append(attempt)
    return in_turn(found.values())


def in_turn(lists: Iterable[Sequence[Attempt]]) -> list[Attempt]:
    """Merge lists of attempts, one of each at a time."""
    return [attempt for attempt in chain(*zip_longest(*lists)) if attempt is not None]


class Race:
    """Attempts side by side.

    Attributes:
        winner: the first connection that stood, None before.
        reasons: why attempts failed: the address, and a few words.
    """

    def __init__(self) -> None:
        self.winner: MuxedConnection | None = None
        self.reasons: list[tuple[str, str]] = []
        self._running = 0
        self._changed = trio.Event()

    async def run(self, attempts: Sequence[Attempt]) -> None:
        """Start the attempts in turn until one wins or all have failed; several such rows may run side by side."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for attempt in sorted(attempts, key=lambda attempt: attempt.head_start):
                with trio.move_on_at(began + attempt.head_start):
                    await self._until(lambda: not self._running)
                self._running += 1
                failed = len(self.reasons)
                nursery.start_soon(self._attempt, attempt, nursery.cancel_scope)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await self._until(lambda failed=failed: len(self.reasons) > failed)  # type: ignore[misc]

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    async def _attempt(self, attempt: Attempt, race: trio.CancelScope) -> None:
        try:
            connection = await attempt.run()
        except Exception as error:  # noqa: BLE001  a task boundary: peers tell the addresses
            if not isinstance(error, OSError | UpgradeError):
                _log.exception("an attempt at %s failed", attempt.address)
            self.reasons.append((str(attempt.address), getattr(error, "strerror", None) or str(error)))
            self._running -= 1
            self._changed.set()
            self._changed = trio.Event()
            return
        if self.winner is None:
            self.winner = connection
            race.cancel()
        else:
            await connection.close()
