"""Short connections: opened to ask a peer something, shared by whoever asks it meanwhile, and closed when idle."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from peertunnel.errors import NotFound
from peertunnel.peers import RequestError
from peertunnel.transport.connection import MuxedConnection

LINGER = (
    10.0  # seconds that a connection which nobody uses is kept: the next question often goes to the same peer
)


class Dialler(Protocol):
    """Opens connections, and knows those that stand."""

    def start_soon(self, work: Callable[..., Awaitable[object]], *details: object) -> None:
        """Run something in the background, whose failure ends nothing else."""
        ...

    def connections(self, peer_id: str) -> list[MuxedConnection]:
        """Return the living connections to a peer, the newest first."""
        ...

    async def dial(self, peer_id: str, addresses: Iterable[str], within: float) -> MuxedConnection:
        """Open a connection; raises NotFound."""
        ...


@dataclass(slots=True, eq=False)
class _Dial:
    """One dial, under way until it has `ended`; `why_not` says why it led nowhere, unless it was given up."""

    places: Sequence[str]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    why_not: str = ""


@dataclass(slots=True, eq=False)
class _Visit:
    """One peer that is being asked: `count` askers wait for, or use, one connection.

    dials: those under way, by address.
    """

    count: int = 0
    left_at: float = 0.0  # trio's clock, seconds
    connection: MuxedConnection | None = None
    dials: dict[str, _Dial] = field(default_factory=dict)


async def _say_nothing(_: MuxedConnection) -> None:
    pass


class Visits:
    """Gives out connections for questions.

    Args:
        dialler: opens them.

    Attributes:
        introduce: called with a connection to a relay before the relay is asked for anything.
    """

    introduce: Callable[[MuxedConnection], Awaitable[None]]

    def __init__(self, dialler: Dialler) -> None:
        self.introduce = _say_nothing
        self._dialler = dialler
        self._visits: dict[str, _Visit] = {}

    @asynccontextmanager
    async def to(
        self, peer_id: str, addresses: Iterable[str], within: float
    ) -> AsyncIterator[MuxedConnection]:
        """Use a connection to a peer, the one that stands or a new one, for at most `within` seconds.

        Raises:
            RequestError: the peer was not reached, or the time is over.
        """
        try:
            with trio.fail_after(within):
                async with self.stay(peer_id, addresses, within) as connection:
                    yield connection
        except trio.TooSlowError as error:
            raise RequestError(f"{peer_id} did not answer in time") from error

    @asynccontextmanager
    async def stay(
        self, peer_id: str, addresses: Iterable[str], within: float
    ) -> AsyncIterator[MuxedConnection]:
        """Use a connection for as long as it lives; see `to`.

        Args:
            within: seconds for opening one.

        Raises:
            RequestError: the peer was not reached.
        """
        visit = self._visits.setdefault(peer_id, _Visit())
        visit.count += 1
        try:
            yield await self._connect(visit, peer_id, addresses, within)
        except NotFound as error:
            raise RequestError(f"{peer_id} was not reached: {error.message}") from error
        finally:
            visit.count -= 1
            if not visit.count:
                self._leave(peer_id, visit)

    @asynccontextmanager
    async def at_relay(
        self, peer_id: str, addresses: Iterable[str], within: float
    ) -> AsyncIterator[MuxedConnection]:
        """Use a connection to a relay, to which we have introduced ourselves on it; see `stay`."""
        async with self.stay(peer_id, addresses, within) as connection:
            await self.introduce(connection)
            yield connection

    async def _connect(
        self, visit: _Visit, peer_id: str, addresses: Iterable[str], within: float
    ) -> MuxedConnection:
        """Return the connection that stands, or the first one to which any address leads.

        Each address is dialled once at a time: the second of two dials would not come from our port, whose mapping holes
        are punched through. Nobody waits for the addresses of others, which may be dead.
        """
        left = list(dict.fromkeys(place.removesuffix(f"/p2p/{peer_id}") for place in addresses))
        why_not = "no address of it is known"
        while True:
            for connection in self._dialler.connections(peer_id):
                if not connection.event_unavailable.is_set():
                    return connection
            if not left:
                raise NotFound(why_not)
            fresh = [place for place in left if place not in visit.dials]
            if fresh:
                dial = _Dial(fresh)
                if (opened := await self._dial(visit, peer_id, dial, within)) is not None:
                    return opened
            else:
                dial = visit.dials[left[0]]
                await dial.ended.wait()
            if dial.why_not:
                left = [place for place in left if place not in dial.places]
                why_not = dial.why_not

    async def _dial(self, visit: _Visit, peer_id: str, dial: _Dial, within: float) -> MuxedConnection | None:
        """Dial, unless another dial of this peer is the first one; the others are given up then."""
        visit.dials.update(dict.fromkeys(dial.places, dial))
        try:
            with dial.scope:
                connection = await self._dialler.dial(peer_id, dial.places, within)
                if visit.connection is not None and not visit.connection.event_unavailable.is_set():
                    self._dialler.start_soon(connection.close)  # both came to stand in one step
                    return visit.connection
                visit.connection = connection
                for other in visit.dials.values():
                    other.scope.cancel()
                return connection
        except NotFound as error:
            dial.why_not = error.message
        finally:
            for place in dial.places:
                del visit.dials[place]
            dial.ended.set()
        return None

    def _leave(self, peer_id: str, visit: _Visit) -> None:
        visit.left_at = trio.current_time()
        if visit.connection is None or visit.connection.is_closed:
            del self._visits[peer_id]
        else:
            self._dialler.start_soon(self._close_when_idle, peer_id, visit)

    async def _close_when_idle(self, peer_id: str, visit: _Visit) -> None:
        while True:
            await trio.sleep_until(due := visit.left_at + LINGER)
            if visit.count or visit.left_at + LINGER > due or self._visits.get(peer_id) is not visit:
                return  # somebody came back, and will leave, or has left, again
            connection = visit.connection
            if connection is None or not (connection.has_streams or connection.kept):
                break
            visit.left_at = due  # a circuit, say, takes longer than to ask for it
        del self._visits[peer_id]
        if connection is not None:
            await connection.close()
