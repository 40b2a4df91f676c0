"""The ways to one peer: which of them carries new tunnels, and what people are told of it."""

from collections.abc import Collection

import trio

from peertunnel.boundary import contained
from peertunnel.events import Emit, PathChanged
from peertunnel.transport.connection import MuxedConnection

_MEASURING = 1.0  # seconds to wait for the first round trip before the path is told without one
_SUCCESSION = 0.5  # seconds; a round trip or two, in which the peer's last connection stands at our end, too
_LOOK = 1.0  # seconds between looks at connections that something better has replaced


class Paths:
    """The living connections to one peer, of which the best one counts.

    Args:
        peer_id: base58.
        emit: takes a PathChanged whenever another one is the best.

    Attributes:
        trial: one that is about to be measured, and is not closed before.
    """

    def __init__(self, peer_id: str, emit: Emit) -> None:
        self.changed = trio.Event()  # replaced each time
        self._peer_id = peer_id
        self._emit = emit
        self._connections: list[MuxedConnection] = []
        self._doubted: Collection[MuxedConnection] = ()
        self._preferred: MuxedConnection | None = None
        self.trial: MuxedConnection | None = None

    def __contains__(self, connection: MuxedConnection) -> bool:
        return connection in self._connections

    def add(self, connection: MuxedConnection) -> None:
        """Take a connection that may carry tunnels."""
        if connection not in self._connections:
            self._connections.append(connection)
            self.tell()

    @property
    def best(self) -> MuxedConnection | None:
        """The connection for new tunnels: a direct one before a relayed one, and the latest of limited ones."""
        self._connections = [c for c in self._connections if not c.event_unavailable.is_set()]
        if len(self._connections) == 1:  # as mostly; each tunnel asks
            return self._connections[0]
        ranks = {
            c: (c in self._doubted, c is not self._preferred, *_rank(c, number))
            for number, c in enumerate(self._connections)
        }
        return min(ranks, key=ranks.__getitem__, default=None)

    @property
    def all(self) -> list[MuxedConnection]:
        """All that stand."""
        return [connection for connection in self._connections if not connection.is_closed]

    def doubt(self, connections: Collection[MuxedConnection]) -> None:
        """Prefer whatever else there is to connections whose peer is silent; none when it has spoken again."""
        self._doubted = connections
        self.tell()

    def prefer(self, connection: MuxedConnection | None) -> None:
        """Have one of them carry new tunnels before all that are not doubted; None when it is as good as others again."""
        if connection is not self._preferred:
            self._preferred = connection
            self.tell()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = trio.Event()

    async def follow(self) -> None:
        """Tell of the best path until there is none."""
        told: MuxedConnection | None = None
        while (best := self.best or await self._successor(told)) is not None:
            news = self.changed
            if best is not told:
                await self._tell_of(best)
                told = best
            async with trio.open_nursery() as nursery:
                for event in (best.event_unavailable, news):
                    nursery.start_soon(_first, event, nursery.cancel_scope)
        if told is not None:
            self._emit(PathChanged(self._peer_id, "none", None))

    async def _successor(self, lost: MuxedConnection | None) -> MuxedConnection | None:
        """Wait for what may replace a circuit: its peer may have closed it for a better way, a moment too early."""
        if lost is not None and lost.way.kind == "relayed":
            with trio.move_on_after(_SUCCESSION):
                await self.changed.wait()
        return self.best

    async def retire(self) -> None:
        """Close connections that carry nothing beside a better one, until cancelled: a hole may be punched twice."""
        while True:
            await trio.sleep(_LOOK)
            best = self.best
            for connection in self._connections.copy():
                is_spared = connection in (best, self.trial) or connection in self._doubted
                if not is_spared and not connection.has_streams:
                    await contained(connection.close)

    async def _tell_of(self, connection: MuxedConnection) -> None:
        with trio.move_on_after(_MEASURING):
            await connection.measured()
        round_trip = None if connection.round_trip is None else connection.round_trip * 1000
        kind, transport = connection.way.kind, connection.transport
        self._emit(PathChanged(self._peer_id, kind, round_trip, *left(connection), transport))


def left(connection: MuxedConnection) -> tuple[int | None, float | None]:
    """Give what a relay still carries of a connection: bytes and seconds, None for no limit."""
    if (limit := connection.way.limit) is None:
        return None, None
    seconds = None if limit.ends_at is None else max(0.0, limit.ends_at - trio.current_time())
    return limit.bytes_left, seconds


def _rank(connection: MuxedConnection, number: int) -> tuple[bool, bool, float, int]:
    """Give the lowest rank to the best; of equal ones the first stays, but of limited ones the last is the least used."""
    if (limit := connection.way.limit) is None:
        return connection.way.kind == "relayed", False, 0.0, number
    return True, True, float("-inf") if limit.ends_at is None else -limit.ends_at, -number


async def _first(event: trio.Event, race: trio.CancelScope) -> None:
    await event.wait()
    race.cancel()
