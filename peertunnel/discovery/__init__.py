"""Ways to announce a service and to find the peers that may provide it."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from peertunnel.boundary import contained
from peertunnel.events import Emit, Warned
from peertunnel.protocols.service import Service

# Seconds until a source that failed is started again, doubling: what failed may come again, and a network or a
# peer that made it fail changes in minutes. Who has run for longer than the last pause has recovered.
_FIRST_PAUSE, _LAST_PAUSE = 10.0, 300.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that may provide a service: whoever dials it must still find out.

    peer_id: in base58. addresses: multiaddrs, each ending in /p2p/ and the peer id. source: what named it.
    """

    peer_id: str
    addresses: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a provider tells of itself; both functions are asked again and again, since the answers change.

    peer_id: in base58. addresses: gives multiaddrs, each ending in /p2p/ and the peer id.
    topics: gives the service's topics of today and tomorrow, none for one that goes by its peer id only.
    """

    peer_id: str
    addresses: Callable[[], tuple[str, ...]]
    topics: Callable[[], tuple[bytes, ...]]


class Source(Protocol):
    """One way to announce and to find; none of them fails for want of a network, they go on trying."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    async def announce(self, announcement: Announcement) -> None:
        """Announce until cancelled, and withdraw then."""

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Look for a service's providers until the channel is closed, so use it in a with block.

        A peer is named again when it has restarted or has other addresses. The channel ends when this source
        will never name another one; it outlives a failure, after which the source is started again.
        """
        ...


class Search(Protocol):
    """What a source does for one `find`."""

    def close(self) -> None:
        """End the channel."""


@contextmanager
def ending(searches: Iterable[Search]) -> Iterator[None]:
    """Close a source's searches when what runs it is cancelled; after a failure it is started again, and they go on."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            for search in searches:
                search.close()
        raise


async def sustain(source: Source, emit: Emit, work: Callable[..., Awaitable[None]], *details: object) -> None:
    """Do a source's work, and again after a pause whenever it fails, which is logged and ends nothing else.

    Args:
        source: whose work it is.
        emit: takes the warning, one for failures in a row.
        work: what to do, with `details`, until cancelled.
    """
    pause = _FIRST_PAUSE
    while True:
        began = trio.current_time()
        if await contained(work, *details):
            return
        if trio.current_time() - began > _LAST_PAUSE:
            pause = _FIRST_PAUSE
        if pause == _FIRST_PAUSE:
            emit(Warned(f"Meeting peers by {source.name} has failed: the node goes on, and tries it again."))
        await trio.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)
