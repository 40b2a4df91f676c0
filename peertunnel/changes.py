"""Changes of the network under us: an address came or went, or the machine was asleep."""

import time
from collections.abc import Awaitable, Callable

import trio

from peertunnel.interfaces import interface_addresses

LOOK = 2.0  # seconds between looks; reading the addresses takes less than a millisecond
ASLEEP = 10.0  # seconds that the wall clock is ahead of the one that stands still in sleep


async def watch_network(note: Callable[[], Awaitable[None]]) -> None:
    """Call `note` after each change, until cancelled."""
    addresses, lag = _addresses(), _lag()
    while True:
        await trio.sleep(LOOK)
        now, now_lag = _addresses(), _lag()
        if now != addresses or now_lag - lag > ASLEEP:
            await note()
        addresses, lag = now, now_lag


def _addresses() -> frozenset[str]:
    return frozenset(str(address.ip) for address in interface_addresses())


def _lag() -> float:
    return time.time() - time.monotonic()
