"""A multiplexed connection: the reactor that joins the yamux session to a channel and to its streams.

Its reader takes what came, lets the session name it, hands payload to the streams and sends what the session wants
sent; it never waits for any of that. Streams that want to send take turns in order of arrival: while the channel is
blocked they are parked, and whoever has sent a batch wakes the next one.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.protocols import yamux
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.multistream import Initiator, Responder
from peertunnel.streams import End, Unavailable
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer, Channel
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.way import Way

_log = logging.getLogger(__name__)
NEGOTIATION_TIMEOUT = 10.0  # seconds for the peer to settle the protocol of a stream; as in go-libp2p
_LATE = 0.5  # seconds behind time, after which it is not the peer who was silent
_LINGER = 1.0  # seconds for the peer to take what we sent last before the socket is closed


class MuxedConnection(IMuxedConn):
    """One connection to one peer, as the library's swarm and our tunnels see it.

    Args:
        conn: the secured connection, for the library.
        raw: what it stands on, for addresses: not every secured connection passes them on.
        peer_id: the peer, as authenticated.
        channel: carries the bytes.
        reactor: watches the sockets of spliced streams.
        router: serves the streams that the peer opens.

    Attributes:
        event_closed: the connection has ended.
        event_unavailable: no new stream can be opened; open ones may still finish.
        reason: why the connection ended, "" while it lives.
        round_trip: seconds, the latest measurement; None before the first.
        kept: how many rely on the connection although no stream may be open; it is not closed for being idle.
    """

    def __init__(
        self,
        conn: ISecureConn,
        raw: RawSocket,
        peer_id: ID,
        channel: Channel,
        reactor: Reactor,
        router: Router,
    ) -> None:
        self.reactor = reactor
        self.peer_id = peer_id
        self.secured_conn = conn
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.event_unavailable = trio.Event()
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self.reason = ""
        self.round_trip: float | None = None
        self.kept = 0
        self._max_streams = yamux.FEW_STREAMS
        now = trio.current_time()
        self.session = yamux.ClientSession(now) if conn.is_initiator else yamux.ServerSession(now)
        self._raw = raw
        self._channel = channel
        self._router = router
        self._streams: dict[int, MuxedStream] = {}
        self._negotiating: dict[MuxedStream, float] = {}
        self._turns: deque[Callable[[], None]] = deque()
        self._is_draining = False
        self._acknowledged = trio.lowlevel.ParkingLot()
        self._pongs = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._to_library, self._from_peer = trio.open_memory_channel[MuxedStream](yamux.MAX_STREAMS)

    # -- the reader -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run the connection until it ends; whatever goes wrong ends this connection only."""
        reason = "closed by us"
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._keep_alive)
                self.event_started.set()
                reason = await self._carry()
                self._nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001  a task boundary
            _log.exception("a connection to %s failed", self.peer_id)
            reason = f"internal error: {error!r}"
        finally:
            self._end(reason)

    async def _carry(self) -> str:
        try:
            await self._channel.run(self._received, self._drained)
        except RemoteProtocolError as error:
            self.session.send_go_away(yamux.GoAwayCode.PROTOCOL_ERROR)
            self.flush()
            return f"protocol error: {error}"
        except OSError as error:
            return f"connection lost: {error.strerror or error}"
        return "closed by the peer"

    def _received(self, data: memoryview) -> None:
        """Take plaintext; payload of one stream that lies in one batch is handed over in one piece."""
        views: list[memoryview] = []
        size, stream_id = 0, 0
        for event in self.session.receive(data, trio.current_time()):
            if type(event) is yamux.DataReceived:
                if event.stream_id != stream_id:
                    if views:
                        self._hand_over(stream_id, views, size)
                    views, size, stream_id = [], 0, event.stream_id
                views.append(event.data)
                size += len(event.data)
            else:
                if views:
                    self._hand_over(stream_id, views, size)
                    views, size = [], 0
                self._happened(event)
        if views:
            self._hand_over(stream_id, views, size)
        self.flush()

    def _hand_over(self, stream_id: int, views: list[memoryview], size: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.on_data(views, size)

    def _happened(self, event: yamux.Event) -> None:
        self.reactor.yield_soon()
        match event:
            case yamux.StreamOpened(stream_id):
                stream = MuxedStream(self, stream_id, Responder(self._router.speaks, self._router.offered))
                self._streams[stream_id] = stream
                self._negotiating[stream] = trio.current_time() + NEGOTIATION_TIMEOUT
            case yamux.StreamFinished(stream_id):
                if (finished := self._streams.get(stream_id)) is not None:
                    finished.on_finished()
            case yamux.StreamReset(stream_id):
                if (aborted := self._streams.get(stream_id)) is not None:
                    self.forget(aborted)
                    aborted.on_aborted(End.PEER_RESET)
            case yamux.WindowOpened(stream_id):
                if (waiting := self._streams.get(stream_id)) is not None:
                    waiting.on_window()
            case yamux.StreamAcknowledged():
                self._acknowledged.unpark()
            case yamux.PingAnswered(round_trip):
                self.round_trip = round_trip
                self._pongs.unpark_all()
            case yamux.GoAwayReceived():
                self.event_unavailable.set()
                self._acknowledged.unpark_all()
                self._close_if_done()
            case _:
                pass

    def on_negotiated(self, stream: MuxedStream) -> None:
        """Pass on a stream whose protocol is settled."""
        self._negotiating.pop(stream, None)
        if not self._router.route(stream):
            try:
                self._to_library.send_nowait(stream)
            except (trio.WouldBlock, trio.ClosedResourceError):
                stream.abort()

    async def _keep_alive(self) -> None:
        while True:
            # A pong may bring the deadline forward while we sleep, but never to less than an interval from now.
            due = min(self.session.deadline(), trio.current_time() + yamux.KEEPALIVE_INTERVAL)
            await trio.sleep_until(due)
            if trio.current_time() - due > _LATE:
                await trio.sleep(_LATE)  # we were stopped ourselves: what the peer sent is read first
            now = trio.current_time()
            if self._channel.progressed() and self.session.awaits_pong:
                self.session.heard(now)  # the ping is still on its way, behind what the peer is taking
            if any(isinstance(event, yamux.PeerTimedOut) for event in self.session.tick(now)):
                self._end("connection lost: the peer fell silent")
            for stream, deadline in list(self._negotiating.items()):
                if now >= deadline:
                    stream.abort()
            self.flush()

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Whether the channel has not taken the last batch yet."""
        return self._channel.is_blocked

    def flush(self) -> None:
        """Send what the session wants sent, unless the channel is blocked; it follows then."""
        if self.session.has_outgoing and not self._channel.is_blocked:
            self._channel.send(self.session.outgoing())

    def send(self, stream_id: int, data: Buffer) -> None:
        """Send a copy of `data`, within the stream's window."""
        self.session.send_data(stream_id, memoryview(data))
        self.flush()

    def send_batch(self, stream_id: int, size: int) -> None:
        """Send `size` bytes of payload that lie in the batch buffer; only when not blocked."""
        end = self.session.frame_in_place(stream_id, buffers.batch, size)
        if self.session.has_outgoing:
            self._channel.send(self.session.outgoing(), buffers.batch[:end])
        else:
            self._channel.send(buffers.batch[:end])

    def _drained(self) -> None:
        self.flush()
        self._is_draining = True
        while self._turns and not self._channel.is_blocked:
            self._turns.popleft()()
        self._is_draining = False

    @property
    def is_contended(self) -> bool:
        """Whether others wait for their turn."""
        return bool(self._turns)

    def take_turn(self, send: Callable[[], None]) -> None:
        """Have `send` called once the channel takes a batch, after all who asked before; at once if nobody did."""
        self._turns.append(send)
        if not self._is_draining and not self._channel.is_blocked:
            self._drained()

    # -- streams --------------------------------------------------------------------------------------------------

    async def open_stream(self) -> MuxedStream:
        """Open a stream for the library, which settles the protocol itself.

        Raises:
            Unavailable: the connection is closed, or takes no new streams.
        """
        return await self._open(None)

    async def open_tunnel(self, protocol: str, is_urgent: bool = False) -> MuxedStream:
        """Open a stream of one protocol without waiting for the peer's consent: data may follow at once.

        An urgent one doesn't wait where the peer has many streams already.

        Raises:
            Unavailable: the connection is closed, or takes no new streams.
        """
        stream = await self._open(Initiator(protocol), is_urgent)
        stream.protocol = protocol
        self.send(stream.stream_id, Initiator(protocol).hello())
        return stream

    def opens_at_once(self, is_urgent: bool = False) -> bool:
        """Return whether a stream need not wait for others to be acknowledged or, unless it is urgent, to end."""
        has_room = is_urgent or self.session.open_streams < self._max_streams
        return has_room and self.session.streams_unacknowledged < yamux.MAX_UNACKNOWLEDGED

    def bears(self, streams: int) -> None:
        """Note how many streams, of both ends, the peer takes at a time; until then we open only few."""
        if streams > self._max_streams:
            self._max_streams = streams
            self._acknowledged.unpark_all()

    async def _open(self, negotiation: Initiator | None, is_urgent: bool = False) -> MuxedStream:
        while not (self.opens_at_once(is_urgent) or self.event_unavailable.is_set()):
            await self._acknowledged.park()
        if self.is_closed:
            raise Unavailable(self.reason)
        try:
            stream_id = self.session.open_stream(trio.current_time())
        except LocalProtocolError as error:
            raise Unavailable(str(error)) from error
        stream = self._streams[stream_id] = MuxedStream(self, stream_id, negotiation)
        return stream

    async def accept_stream(self) -> MuxedStream:
        """Return the next stream that the peer opened and that the router left to the library."""
        try:
            return await self._from_peer.receive()
        except trio.EndOfChannel:
            raise Unavailable(self.reason) from None

    def forget(self, stream: MuxedStream) -> None:
        """Drop a stream that has ended."""
        self._streams.pop(stream.stream_id, None)
        self._negotiating.pop(stream, None)
        self._acknowledged.unpark()
        self._close_if_done()

    async def measured(self) -> None:
        """Wait until the round trip has been measured, or the connection has ended."""
        if self.round_trip is None and not self.is_closed:
            await self._pongs.park()

    async def ping(self) -> float:
        """Measure the round trip, in seconds.

        Raises:
            Unavailable: the connection ended first.
        """
        self.session.send_ping(trio.current_time())
        self.flush()
        if not self.is_closed:
            await self._pongs.park()
        if self.is_closed or self.round_trip is None:
            raise Unavailable(self.reason)
        return self.round_trip

    # -- the end --------------------------------------------------------------------------------------------------

    def _close_if_done(self) -> None:
        if self.session.peer_is_going_away and not self._streams:
            self._channel.finish()

    async def close(self) -> None:
        """Close the connection: open streams are aborted, and what was sent before still arrives."""
        if not self.is_closed:
            for stream in list(self._streams.values()):
                stream.abort()
            self.session.send_go_away()
            self.flush()
            self._channel.finish()
            with trio.move_on_after(_LINGER):
                await self.event_closed.wait()
            self._end("closed by us")

    def _end(self, reason: str) -> None:
        """Mark the connection as ended, and abort whatever still runs on it."""
        if self.event_closed.is_set():
            return
        self.reason = reason
        self.event_closed.set()
        self.event_unavailable.set()
        self.event_started.set()
        for stream in list(self._streams.values()):
            stream.on_aborted(End.LOST)
        self._streams.clear()
        self._negotiating.clear()
        self._to_library.close()
        for lot in (self._acknowledged, self._pongs):
            lot.unpark_all()
        while self._turns:
            self._turns.popleft()()
        self._channel.close()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    @property
    def way(self) -> Way:
        """How it reaches the peer."""
        return self._raw.way

    @property
    def local_port(self) -> int:
        """The port at our end, 0 behind a relay."""
        return self._raw.local_port

    @property
    def is_initiator(self) -> bool:
        """Whether ours was the client's side of the handshakes."""
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self.event_closed.is_set()

    @property
    def has_streams(self) -> bool:
        """Whether any stream is open, ours or the peer's."""
        return bool(self._streams)

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the peer's address."""
        return self._raw.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Return whether a relay stands in between."""
        return self._raw.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the peer's host and port."""
        return self._raw.get_remote_address()
