"""A connection over yamux: what joins the session to a channel and to its streams.

Its reader takes what came, lets the session name it, hands payload to the streams and sends what the session wants
sent; it never waits for any of that. Streams that want to send take turns in order of arrival: while the channel is
blocked they are parked, and whoever has sent a batch wakes the next one.
"""

from collections import deque
from collections.abc import Callable, Sequence

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.protocols import yamux
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.streams import End, Unavailable
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer, Channel
from peertunnel.transport.connection import LINGER, STILL, MuxedConnection
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.stream import MuxedStream

_LATE = 0.5  # seconds behind time, after which it is not the peer who was silent


class YamuxConnection(MuxedConnection):
    """One connection to one peer over a channel.

    Args:
        raw: the socket that the channel has taken over, for addresses.
        peer_id: the peer, as authenticated.
        channel: carries the bytes.
        reactor: watches the sockets of spliced streams.
        router: serves the streams that the peer opens.
    """

    def __init__(
        self,
        raw: RawSocket,
        peer_id: ID,
        channel: Channel,
        reactor: Reactor,
        router: Router,
    ) -> None:
        super().__init__(peer_id, reactor, router)
        self.way, self.local_port = raw.way, raw.local_port
        kind = yamux.ClientSession if raw.is_initiator else yamux.ServerSession
        self.session: yamux.Session = kind(trio.current_time())
        self.send_window = self.session.send_window
        self.first_view = buffers.slots[0]
        self._max_streams = yamux.FEW_STREAMS
        self._raw = raw
        self._channel = channel
        self._turns: deque[Callable[[], None]] = deque()
        self._is_draining = False
        self._is_flushing = False

    # -- the reader -----------------------------------------------------------------------------------------------

    async def carry(self) -> str:
        """Carry bytes until the connection ends; return why it did."""
        assert self._nursery is not None
        self._nursery.start_soon(self._keep_alive)
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
        for event in self.session.receive(data, self.now()):
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
        self._mind_negotiations()
        self.flush()

    def _hand_over(self, stream_id: int, views: list[memoryview], size: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.on_data(views, size)

    def _happened(self, event: yamux.Event) -> None:
        match event:
            case yamux.StreamOpened(stream_id):
                self._opened(stream_id)
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
                self._wake(self._openers, 1)
            case yamux.PingAnswered(round_trip):
                self.round_trip = round_trip
                self._wake(self._pongs)
            case yamux.GoAwayReceived():
                self.on_leaving()
                self._close_if_done()

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
                self._abandon("connection lost: the peer fell silent")
            self.flush()

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Whether the channel has not taken the last batch yet."""
        return self._channel.is_blocked

    def flush(self) -> None:
        """Send what the session wants sent, together with what else the reactor's present events give."""
        if not self._is_flushing and self.session.queued:
            self._is_flushing = True
            self.reactor.soon(self)

    def flush_now(self) -> None:
        """Send what the session wants sent, unless the channel is blocked; it follows then."""
        self._is_flushing = False
        if self.session.queued and not self._channel.is_blocked:
            self._channel.send(self.session.outgoing())

    def on_failure(self, error: Exception) -> None:
        """End the connection: what it had to send could not be sealed."""
        self._end(f"internal error: {error!r}")

    def send(self, stream_id: int, data: Buffer) -> None:
        """Send a copy of `data`, within the stream's window."""
        self.session.send_data(stream_id, memoryview(data))
        self.flush()

    def answer_window(self, stream_id: int) -> int:
        """Return how many bytes of an answer may be sent; none to a peer that asks on and doesn't read our answers."""
        return self.send_window(stream_id) if self.session.queued < yamux.MAX_REPLIES else 0

    def batch_views(self, size: int) -> Sequence[memoryview]:
        """Return the memory in which `send_batch` wants its payload, for `size` bytes or, beside messages, fewer."""
        if size > yamux.MAX_PAYLOAD and self.session.expects_messages(self.now()):
            size = yamux.MAX_PAYLOAD  # a message waits until a batch is sealed and sent
        return buffers.payload_views(min(size, len(buffers.batch)))

    def send_batch(self, stream_id: int, size: int) -> None:
        """Send `size` bytes of payload that lie in the batch buffer; only when not blocked."""
        end = self.session.frame_in_place(stream_id, buffers.batch, size)
        if self.session.queued:
            self._channel.send(self.session.outgoing(), buffers.batch[:end])
        else:
            self._channel.send(buffers.batch[:end])

    def _drained(self) -> None:
        self.flush()
        self._is_draining = True
        while self._turns and not self._channel.is_blocked:
            self._turns.popleft()()
        self._is_draining = False
        self._close_if_done()
        self._wake(self._deliveries)

    @property
    def is_contended(self) -> bool:
        """Whether others wait for their turn."""
        return bool(self._turns)

    def take_turn(self, send: Callable[[], None]) -> None:
        """Have `send` called once the channel takes a batch, after all who asked before; at once if nobody did."""
        self._turns.append(send)
        if not self._is_draining and not self._channel.is_blocked:
            self._drained()

    def consumed(self, stream_id: int, size: int) -> None:
        """Note that received bytes have left our memory; whoever calls this flushes then."""
        self.session.consumed(stream_id, size, self.now())

    def finish(self, stream_id: int) -> None:
        """Send a stream's FIN."""
        self.session.send_fin(stream_id)
        self.flush()

    def reset(self, stream_id: int) -> None:
        """Abort a stream at the peer's end."""
        self.session.send_reset(stream_id)
        self.flush()

    # -- streams --------------------------------------------------------------------------------------------------

    def opens_at_once(self, is_urgent: bool = False) -> bool:
        """Return whether a stream need not wait for others to be acknowledged or, unless it is urgent, to end."""
        has_room = is_urgent or self.session.open_streams < self._max_streams
        return has_room and self.session.streams_unacknowledged < yamux.MAX_UNACKNOWLEDGED

    def bears(self, streams: int) -> None:
        """Note how many streams, of both ends, the peer takes at a time; until then we open only few."""
        if streams > self._max_streams:
            self._max_streams = streams
            self._wake(self._openers)

    def _open_id(self) -> int | None:
        try:
            return self.session.open_stream(self.now())
        except LocalProtocolError as error:
            raise Unavailable(str(error)) from error

    def forget(self, stream: MuxedStream) -> None:
        """Drop a stream that has ended."""
        super().forget(stream)
        self._close_if_done()

    def _send_ping(self) -> None:
        self.session.send_ping(trio.current_time())
        self.flush()

    # -- the end --------------------------------------------------------------------------------------------------

    def _close_if_done(self) -> None:
        if self.session.peer_is_going_away and not self._streams:
            self.flush_now()
            if not self.session.queued:  # or `_drained` comes back to it
                self._channel.finish()

    @property
    def is_delivering(self) -> bool:
        """Whether something has yet to leave: what the system has taken it sends without us, until we close."""
        return not self.is_closed and (self._channel.is_blocked or self.session.queued > 0)

    @property
    def has_streams(self) -> bool:
        """See `MuxedConnection`."""
        return super().has_streams or self._channel.unacknowledged > 0

    def _leave(self) -> None:
        """Tell the peer that nothing new follows."""
        self.session.send_go_away()
        self.flush()

    def _progressed(self) -> bool:
        """Return whether the peer has taken some of what we sent since this was asked last."""
        return self._channel.progressed()

    async def _part(self, until: float) -> None:
        """End our direction of the channel, and let the peer end its own once it has all that we sent.

        What the system still holds for it would be lost if we closed before: the peer goes on sending, credit if nothing
        else, and who sends to a closed socket resets it.
        """
        self._channel.finish()
        took_at = trio.current_time()
        while not self.is_closed:
            with trio.move_on_after(LINGER):
                await self.event_closed.wait()
            now = trio.current_time()
            took_at = now if self._channel.progressed() else took_at
            if not self._channel.unacknowledged or now >= until or now - took_at >= STILL:
                return

    def _abandon(self, reason: str) -> None:
        self._channel.abort()  # or the system would go on sending, from a port that the next dial needs
        super()._abandon(reason)

    def _release(self) -> None:
        while self._turns:
            self._turns.popleft()()
        self._channel.close()

    @property
    def is_initiator(self) -> bool:
        """Whether ours was the client's side of the handshakes."""
        return self._raw.is_initiator

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the peer's address."""
        return self._raw.get_transport_addresses()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the peer's host and port."""
        return self._raw.get_remote_address()
