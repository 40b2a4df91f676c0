"""A connection to one peer, whatever multiplexes its streams."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.budget import place_of
from peertunnel.protocols import yamux
from peertunnel.protocols.multistream import Initiator, Responder
from peertunnel.streams import Unavailable
from peertunnel.transport.channel import Buffer
from peertunnel.transport.identify import Acquaintance
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.way import Way

LINGER = 1.0  # seconds for the peer to get what we sent last before the connection is closed
STILL = 3.0  # seconds without a sign that it gets any of it, after which no more is expected
NEGOTIATION_TIMEOUT = 10.0  # seconds for the peer to settle the protocol of a stream; as in go-libp2p
_log = logging.getLogger(__name__)


class MuxedConnection(ABC):
    """A connection; how bytes travel is for the classes below it to say.

    Args:
        peer_id: the peer, as authenticated.
        reactor: watches the sockets of spliced streams.
        router: serves the streams that the peer opens.

    Attributes:
        event_closed: the connection has ended.
        event_unavailable: no new stream can be opened; open ones may still finish.
        reason: why the connection ended, "" while it lives.
        round_trip: seconds, the latest measurement; None before the first.
        kept: how many rely on the connection although no stream may be open; it is not closed for being idle.
        send_window: tells how many bytes may be sent on a stream now.
        first_view: the memory for up to MAX_PAYLOAD bytes that `batch_views` begins with.
        way: how the connection reaches the peer.
        acquaintance: what the peer tells of itself.
        is_proven: whether the peer has proven that it knows a service's secret, and we that we do.
        local_port: the port at our end, 0 behind a relay.
    """

    send_window: Callable[[int], int]
    first_view: memoryview
    way: Way
    local_port: int

    def __init__(self, peer_id: ID, reactor: Reactor, router: Router) -> None:
        self.now = trio.lowlevel.current_clock().current_time  # trio.current_time looks for it anew each time
        self.peer_id, self.reactor = peer_id, reactor
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.event_unavailable = trio.Event()
        self.reason = ""
        self.round_trip: float | None = None
        self.kept, self.is_proven = 0, False
        self.acquaintance = Acquaintance(self)
        self._router = router
        self._streams: dict[int, MuxedStream] = {}
        self._negotiating: dict[MuxedStream, float] = {}
        self._negotiations = trio.lowlevel.ParkingLot()
        self._openers = trio.lowlevel.ParkingLot()  # tasks that wait until another stream may be opened
        self._pongs = trio.lowlevel.ParkingLot()
        self._deliveries = trio.lowlevel.ParkingLot()  # who closes waits for what is still to be delivered
        self._nursery: trio.Nursery | None = None

    # -- how bytes travel -----------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be sent now, on any stream."""
        return False

    @property
    def is_contended(self) -> bool:
        """Whether others wait for their turn."""
        return False

    @abstractmethod
    async def carry(self) -> str:
        """Carry bytes until the connection ends; return why it did."""

    @abstractmethod
    def flush(self) -> None:
        """Send what is to be sent, as far as it can leave now."""

    @abstractmethod
    def send(self, stream_id: int, data: Buffer) -> None:
        """Send a copy of `data`, within the stream's window."""

    def answer_window(self, stream_id: int) -> int:
        """Return how many bytes may be sent on a stream of which the protocol is still being settled."""
        return self.send_window(stream_id)

    @abstractmethod
    def batch_views(self, size: int) -> Sequence[memoryview]:
        """Return the memory in which `send_batch` wants its payload, for `size` bytes or, for now, fewer."""

    @abstractmethod
    def send_batch(self, stream_id: int, size: int) -> None:
        """Send `size` bytes of payload that lie in the batch's memory; only when not blocked."""

    @abstractmethod
    def take_turn(self, send: Callable[[], None]) -> None:
        """Have `send` called once something can be sent, after all who asked before; at once if nobody did."""

    @abstractmethod
    def consumed(self, stream_id: int, size: int) -> None:
        """Note that received bytes have left our memory; whoever calls this flushes then."""

    @abstractmethod
    def finish(self, stream_id: int) -> None:
        """Send a stream's FIN."""

    @abstractmethod
    def reset(self, stream_id: int) -> None:
        """Abort a stream at the peer's end."""

    # -- the connection's task ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run the connection until it ends; whatever goes wrong ends this connection only."""
        reason = "closed by us"
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._end_slow_negotiations)
                self.event_started.set()
                reason = await self.carry()
                self._nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001  a task boundary
            _log.exception("a connection to %s failed", self.peer_id)
            reason = f"internal error: {error!r}"
        finally:
            self._end(reason)

    async def _end_slow_negotiations(self) -> None:
        while True:
            await self._negotiations.park()
            while self._negotiating:
                await trio.sleep_until(min(self._negotiating.values()))
                now = trio.current_time()
                for stream in [stream for stream, deadline in self._negotiating.items() if now >= deadline]:
                    self._negotiating[stream] = now + NEGOTIATION_TIMEOUT
                    stream.on_late()

    # -- streams --------------------------------------------------------------------------------------------------

    def _opened(self, stream_id: int) -> MuxedStream:
        """Take a stream that the peer has opened; `_mind_negotiations` follows when it had its chance."""
        negotiation = Responder(self._router.speaks, self._router.offered)
        stream = self._enrol(MuxedStream(self, stream_id, negotiation))
        self._negotiating[stream] = self.now() + NEGOTIATION_TIMEOUT
        return stream

    def _mind_negotiations(self) -> None:
        """See to it that the negotiations which are not settled by now end in time; most are at once."""
        if self._negotiating:
            self._wake(self._negotiations)

    def on_negotiated(self, stream: MuxedStream) -> None:
        """Pass on a stream whose protocol is settled."""
        self._negotiating.pop(stream, None)
        self._router.route(stream)

    async def open_tunnel(self, protocol: str, is_urgent: bool = False) -> MuxedStream:
        """Open a stream of one protocol without waiting for the peer's consent: data may follow at once.

        An urgent one doesn't wait where the peer has many streams already.

        Raises:
            Unavailable: the connection is closed, or takes no new streams.
        """
        negotiation = Initiator(protocol)
        return self._propose(await self._open(negotiation, is_urgent), protocol, negotiation)

    def open_tunnel_at_once(self, protocol: str) -> MuxedStream:
        """Open a stream as `open_tunnel` does, where that needs no wait.

        Raises:
            Unavailable: the connection is closed, or takes no new streams now.
        """
        negotiation = Initiator(protocol)
        if (stream := self._try_open(negotiation)) is None:
            raise Unavailable("the peer takes no more streams now")
        return self._propose(stream, protocol, negotiation)

    def _propose(self, stream: MuxedStream, protocol: str, negotiation: Initiator) -> MuxedStream:
        stream.protocol = protocol
        self.send(stream.stream_id, negotiation.hello())
        return stream

    def opens_at_once(self, is_urgent: bool = False) -> bool:
        """Return whether a stream need not wait for others to be acknowledged or, unless it is urgent, to end."""
        return True

    def bears(self, streams: int) -> None:  # noqa: B027  QUIC says it itself
        """Note how many streams, of both ends, the peer takes at a time, where the protocol doesn't say it."""

    async def _open(self, negotiation: Initiator, is_urgent: bool = False) -> MuxedStream:
        while (stream := self._try_open(negotiation, is_urgent)) is None:
            await self._openers.park()
        return stream

    def _try_open(self, negotiation: Initiator, is_urgent: bool = False) -> MuxedStream | None:
        """Open a stream; None while there is no room for it."""
        if self.event_unavailable.is_set():
            raise Unavailable(self.reason or "the connection takes no new streams")
        if self.opens_at_once(is_urgent) and (stream_id := self._open_id()) is not None:
            return self._enrol(MuxedStream(self, stream_id, negotiation))
        return None

    def on_leaving(self) -> None:
        """Take it that the peer takes no new streams; open ones may still finish."""
        self.event_unavailable.set()
        self.reactor.yield_soon()
        self._wake(self._openers)

    def _enrol(self, stream: MuxedStream) -> MuxedStream:
        """Keep a new stream until it is forgotten."""
        self._streams[stream.stream_id] = stream
        return stream

    @abstractmethod
    def _open_id(self) -> int | None:
        """Open a stream; None while the peer has to make room first; raises Unavailable if it never will."""

    def forget(self, stream: MuxedStream) -> None:
        """Drop a stream that has ended."""
        self._streams.pop(stream.stream_id, None)
        self._negotiating.pop(stream, None)
        self._wake(self._openers, 1)

    def _wake(self, lot: trio.lowlevel.ParkingLot, count: int = yamux.MAX_STREAMS) -> None:
        """Wake tasks, and have the reactor yield to them, where there are any."""
        if lot:
            lot.unpark(count=count)
            self.reactor.yield_soon()

    # -- the round trip -------------------------------------------------------------------------------------------

    async def measured(self) -> None:
        """Wait until the round trip has been measured, or the connection has ended."""
        if self.round_trip is None and not self.is_closed:
            await self._pongs.park()

    async def ping(self) -> float:
        """Measure the round trip, in seconds.

        Raises:
            Unavailable: the connection ended first.
        """
        if not self.is_closed:
            self._send_ping()
        if not self.is_closed:
            await self._pongs.park()
        if self.is_closed or self.round_trip is None:
            raise Unavailable(self.reason)
        return self.round_trip

    async def close_unless_it_answers(self, within: float) -> None:
        """Ping the peer, and end the connection if it is silent for so many seconds, and takes nothing meanwhile."""
        self._progressed()
        while not self.is_closed:
            with trio.move_on_after(within):
                try:
                    await self.ping()
                except Unavailable:
                    pass
                return
            if not self._progressed():
                self._abandon("connection lost: the peer did not answer")

    def _abandon(self, reason: str) -> None:
        """End the connection to a peer that doesn't hear us."""
        self._end(reason)

    @abstractmethod
    def _send_ping(self) -> None:
        """Ask for a sign of life, which wakes those who wait for the round trip."""

    # -- what it carries ------------------------------------------------------------------------------------------

    @property
    def transport(self) -> Literal["tcp", "quic"]:
        """What it runs over; where a relay carries it, what the relay is reached over."""
        return "quic" if "/quic-v1" in str(self.get_transport_addresses()[0]) else "tcp"

    @property
    def carried(self) -> tuple[int, int] | None:
        """Bytes that have gone to the peer, and come from it; None where we don't count them."""
        return None

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        """Mark the connection as ended, and abort whatever still runs on it."""
        if self.event_closed.is_set():
            return
        self.reason = reason
        for event in (self.event_closed, self.event_unavailable, self.event_started):
            event.set()
        for stream in list(self._streams.values()):
            stream.on_aborted(self.way.loss(self.now()))
        self._streams.clear()
        self._negotiating.clear()
        for lot in (self._openers, self._pongs, self._deliveries):
            lot.unpark_all()
        self._release()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    @abstractmethod
    def _release(self) -> None:
        """Let go of what carried the bytes."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self.event_closed.is_set()

    @property
    def has_streams(self) -> bool:
        """Whether any stream is open, ours or the peer's, or what one has sent has yet to arrive."""
        return bool(self._streams) or self.is_delivering

    @property
    def is_used(self) -> bool:
        """Whether any of that is more than a peer's pings and questions."""
        return self.is_delivering or not all(stream.is_chat for stream in self._streams.values())

    @property
    @abstractmethod
    def is_delivering(self) -> bool:
        """Whether it is up to us to send on what was sent before."""

    @property
    @abstractmethod
    def is_initiator(self) -> bool:
        """Whether ours was the client's side of the handshakes."""

    async def close(self, within: float = LINGER) -> None:
        """Close the connection: open streams are aborted, and what was sent before still arrives. Cancelled, close at once.

        Args:
            within: seconds for that, as long as the peer goes on taking it.
        """
        if not self.is_closed:
            self.event_unavailable.set()
            for stream in list(self._streams.values()):
                stream.abort()
            try:
                self._leave()
                with trio.move_on_after(within) as parting:
                    while self.is_delivering and await self._delivers():
                        pass
                await self._part(parting.deadline)
            finally:
                self._end("closed by us")
        await trio.lowlevel.checkpoint()

    def _leave(self) -> None:  # noqa: B027  QUIC tells it with the close itself
        """Tell the peer that nothing new follows."""

    async def _delivers(self) -> bool:
        """Wait until something has left or arrived; return whether it has in time, or the peer has taken some at least."""
        self._progressed()
        with trio.move_on_after(STILL):
            await self._deliveries.park()
            return True
        return self._progressed()

    @abstractmethod
    def _progressed(self) -> bool:
        """Return whether the peer has taken some of what we sent since this was asked last."""

    async def _part(self, until: float) -> None:  # noqa: B027  QUIC's close needs no more
        """Take leave of the peer once it has what we sent, or the time (trio's clock, seconds) has come."""

    @property
    def place(self) -> str:
        """The network that the peer is in, or that of its relay: by address, since peer ids are free."""
        if self.way.kind == "relayed":
            return f"relay {place_of((str(self.get_transport_addresses()[0]).split('/')[2], 0))}"
        return place_of(self.get_remote_address())

    @abstractmethod
    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the peer's address."""

    @abstractmethod
    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the peer's host and port."""
