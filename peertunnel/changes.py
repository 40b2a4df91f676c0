"""Changes of the network under us: an address or a route came or went, or the machine was asleep."""

import errno
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress

import trio

from peertunnel.boundary import contained, repeated
from peertunnel.interfaces import interface_addresses

LOOK = 2.0  # seconds between looks; one takes less than a millisecond
SETTLE = 0.02  # seconds for the rest of what has begun to change
ASLEEP = 10.0  # seconds that the wall clock is ahead of the one that stands still in sleep

_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # addresses and routes of IPv4 and IPv6, from linux/rtnetlink.h
_MESSAGE = 65_536  # bytes
# For documentation, so nobody's: what leads there leads to the internet.
_FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


async def watch_network(note: Callable[[], Awaitable[None]]) -> None:
    """Call `note` after each change, at once on Linux, until cancelled; it need not have ended before the next one.

    A network that is gone is no news, for nobody can be reached: what takes its place is. Nor is one that we can't look at.
    """
    await repeated(LOOK, _watch, note)


async def _watch(note: Callable[[], Awaitable[None]]) -> None:
    known, lag = _network() or frozenset(), _lag()
    with ExitStack() as stack:
        news = _open_news(stack)
        async with trio.open_nursery() as nursery:
            while True:
                await _wait(news)
                now, now_lag = _network(), _lag()
                if now is None:
                    continue
                if now and (now != known or now_lag - lag > ASLEEP):
                    nursery.start_soon(contained, note)
                known, lag = now, now_lag


async def _wait(news: socket.socket | None) -> None:
    """Wait until the system tells of a change, but no longer than to the next look."""
    with trio.move_on_after(LOOK):
        if news is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(news.fileno())
            await trio.sleep(SETTLE)
            with suppress(OSError):  # there are no more, or were too many
                while True:
                    news.recv(_MESSAGE)


def _open_news(stack: ExitStack) -> socket.socket | None:
    """Give what tells of changes (rtnetlink(7)), or None where nothing does."""
    if sys.platform != "linux":
        return None
    try:
        news = stack.enter_context(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        )
        news.bind((0, _GROUPS))
    except OSError:
        return None
    return news


def _network() -> frozenset[str] | None:
    """Our addresses, and those that we have on the internet's side; empty if none but loopback, None if we can't look."""
    ours = {str(address.ip) for address in interface_addresses() if not address.ip.is_loopback}
    try:
        return frozenset(ours | set(_ways_out()))
    except OSError:
        return None


def _ways_out() -> Iterator[str]:
    for family, far in _FAR:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((far, 9))  # which sends nothing
                yield f"from {sock.getsockname()[0]}"
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                raise


def _lag() -> float:
    return time.time() - time.monotonic()
