"""The tunnels of one service: carried, numbered and reported."""

import functools
import itertools
import socket
from collections.abc import Callable

import trio

from peertunnel.events import Emit, Event, TrafficMeasured, TunnelClosed, TunnelOpened
from peertunnel.streams import End, Outcome, Stream

Afterwards = Callable[[Callable[[], None]], None]

_MEASURE_INTERVAL = 1.0  # seconds between reports of traffic


class Tunnels:
    """Carries tunnels, tells of each, and knows when the last one has ended.

    What is told takes as long as half a tunnel's opening, so bytes that are ready go first.

    Args:
        emit: takes the events.
        afterwards: does what can wait until they have gone; the reactor's.
    """

    def __init__(self, emit: Emit, afterwards: Afterwards) -> None:
        self._emit = emit
        self._afterwards = afterwards
        self._numbers = itertools.count(1)
        self._open: dict[int, Stream] = {}
        self._sent = self._received = 0  # bytes of the tunnels that have ended
        self._changed = trio.lowlevel.ParkingLot()

    def number(self) -> int:
        """Return a number for the next tunnel; one that is opened again keeps its number."""
        return next(self._numbers)

    def opened(self, number: int, peer: str, remote: str) -> None:
        """Report that a tunnel is about to carry bytes.

        Args:
            remote: who connected, on the consumer; what was dialled, on the provider.
        """
        self._tell(TunnelOpened(number, peer, remote))

    def start(
        self,
        stream: Stream,
        sock: socket.socket,
        remote: str,
        ended: Callable[[Outcome], None] = lambda outcome: None,
        *,
        is_silent: bool = False,
    ) -> None:
        """Carry a tunnel, and report it, from its beginning to its end, without a task that waits for it.

        Args:
            remote: see `opened`.
            ended: called when it was reported that the tunnel has ended.
            is_silent: see `Stream.attach`.
        """
        number = self.number()
        self._open[number] = stream
        self.opened(number, stream.peer, remote)

        def end(outcome: Outcome) -> None:
            self._leave(number)
            self.closed(number, outcome)
            ended(outcome)

        stream.attach(sock, end, is_silent=is_silent)

    async def carry(
        self, number: int, stream: Stream, sock: socket.socket, replay: bytes | None = None
    ) -> Outcome:
        """Join a stream to a socket until both have ended; see `Stream.splice`. Cancelled, report the end."""
        self._open[number] = stream
        try:
            outcome = await stream.splice(sock, replay)
        except trio.Cancelled:
            self.closed(number, Outcome(End.LOCAL_RESET, stream.sent_bytes, stream.received_bytes))
            raise
        finally:
            self._leave(number)
        return outcome

    def _leave(self, number: int) -> None:
        stream = self._open.pop(number)
        self._sent += stream.sent_bytes
        self._received += stream.received_bytes
        self._changed.unpark_all()

    def closed(self, number: int, outcome: Outcome) -> None:
        """Report that a tunnel has ended."""
        self._tell(TunnelClosed(number, outcome.sent, outcome.received, outcome.end.value))

    def _tell(self, event: Event) -> None:
        self._afterwards(functools.partial(self._emit, event))

    @property
    def are_open(self) -> bool:
        """Whether any tunnel is open."""
        return bool(self._open)

    async def wait_all_closed(self) -> None:
        """Wait until no tunnel is open."""
        while self._open:
            await self._changed.park()

    def abort(self) -> None:
        """Reset all tunnels that are still open."""
        for stream in list(self._open.values()):
            stream.abort()

    async def measure(self) -> None:
        """Report the traffic whenever it has changed, until cancelled."""
        last = (0, 0)
        while True:
            await trio.sleep(_MEASURE_INTERVAL)
            streams = self._open.values()
            now = (
                self._sent + sum(stream.sent_bytes for stream in streams),
                self._received + sum(stream.received_bytes for stream in streams),
            )
            if now != last:
                last = now
                self._emit(TrafficMeasured(*now))
