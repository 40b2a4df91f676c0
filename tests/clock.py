"""Time for deadlines that are short: it stands still when the machine does, as all that is waited for does then."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_TICK = 0.02  # seconds
_MOST = 0.1  # seconds that a tick counts, however late it comes


class Clock:
    """Counts ticks. now: seconds since it runs, but for those in which the machine stood still."""

    def __init__(self) -> None:
        self.now = 0.0

    async def run(self, until: float = float("inf")) -> None:
        """Go on until then, or until cancelled."""
        while self.now < until:
            before = trio.current_time()
            await trio.sleep(_TICK)
            self.now += min(trio.current_time() - before, _MOST)


@asynccontextmanager
async def soon(seconds: float) -> AsyncIterator[None]:
    """Raise TooSlowError if the block takes longer."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await Clock().run(seconds)
                scope.cancel()

            nursery.start_soon(give_up)
            yield
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise trio.TooSlowError
