"""A connection over QUIC: what joins the engine's streams to ours.

Nothing waits in Python but what the engine could not take or a reader has not taken yet, both bounded: the engine gives
a peer credit for what was read from it, so a reader that stops holds back its own stream and no other.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.protocols.yamux import MAX_PAYLOAD
from peertunnel.protocols.yamux.window import HOLD
from peertunnel.streams import End
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.quic.flow import TURN, Flow
from peertunnel.transport.quic.path import Path
from peertunnel.transport.quic.room import Room
from peertunnel.transport.raw import socket_address
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.way import DIRECT, Way

if TYPE_CHECKING:
    from peertunnel.transport.quic.endpoint import Endpoint

BATCH = 256 * 1024  # bytes that are handed to the engine at a time
HELD = 256 * 1024  # bytes of a stream that are read ahead of whoever takes them
LAST = 0.05  # seconds, beside two round trips, that what was sent before a reset has to arrive; an acknowledgement may take half
REFUSED = 6.0  # seconds for a sign of life from a port that is said to be closed; idle peers give one every 5 s at the least


class QuicConnection(MuxedConnection):
    """One connection to one peer.

    Args:
        endpoint: has the socket and the engine.
        number: the connection's number there.
        peer_id: the peer, as authenticated.
        is_initiator: whether we dialled.
        reactor: watches the sockets of spliced streams.
        router: serves the streams that the peer opens.
        way: how it reaches the peer.
    """

    def __init__(
        self,
        endpoint: "Endpoint",
        number: int,
        peer_id: ID,
        is_initiator: bool,
        reactor: Reactor,
        router: Router,
        way: Way = DIRECT,
    ) -> None:
        super().__init__(peer_id, reactor, router)
        self.number = number
        self.way = way
        self.local_port = endpoint.name[1]
        self.send_window = self._send_window
        self.first_view = buffers.batch[:MAX_PAYLOAD]
        self._endpoint = endpoint
        self._engine = endpoint.engine
        self._is_initiator = is_initiator
        self._path = Path(self._engine, number)
        self._room = Room(self._engine, number)
        self._flows: dict[int, Flow] = {}
        self._resumed: list[int] = []
        self._writable: list[int] = []
        self._undelivered: set[int] = set()
        self._early: list[tuple[str, int | None]] = []  # what happened before the host knew us
        self._pinged: tuple[float, int] | None = None  # when, and how many acknowledgements there were
        self._is_doubted = False

    async def carry(self) -> str:
        """Carry bytes until the connection ends; return why it did."""
        self.round_trip = self._room.round_trip = self._path.look().round_trip
        self._endpoint.resumed.add(self)
        self._endpoint.flush()
        await self.event_closed.wait()
        return self.reason

    # -- what the engine tells ------------------------------------------------------------------------------------

    def on_event(self, kind: str, stream_id: int | None) -> None:
        """Take what happened on the connection; nothing does before the host knows it."""
        if self.event_started.is_set():
            self._happened(kind, stream_id)
        elif kind in ("opened", "readable", "stopped"):
            self._early.append((kind, stream_id))

    def _happened(self, kind: str, stream_id: int | None) -> None:
        if kind == "available":
            self._wake(self._openers)
        if stream_id is None or self.is_closed:
            return
        if kind == "opened":
            self._opened(stream_id)
            self._read(stream_id)
            self._mind_negotiations()
        elif kind == "readable":
            self._read(stream_id)
        elif kind == "writable":
            self._writable.append(stream_id)
            self._endpoint.resumed.add(self)
        elif kind == "stopped":
            self._stop(stream_id)
        if kind in ("delivered", "stopped"):
            self._undelivered.discard(stream_id)
            self._wake(self._deliveries)

    def on_lost(self, reason: str) -> None:
        """Take the end of the connection."""
        self._read_out()
        self._end(reason or "closed by us")

    def doubt(self) -> None:
        """Close the connection unless the peer speaks: a router that forgot it says, too, that its port is closed (ICMP)."""
        if self._nursery is not None and not self._is_doubted:
            self._is_doubted = True
            self._nursery.start_soon(self._check)
            self.reactor.yield_soon()

    async def _check(self) -> None:
        await self.close_unless_it_answers(REFUSED)
        self._is_doubted = False

    def _read_out(self) -> None:
        """Take the rest of what our readers are slow to take: the peer knows that it has come, and is gone for good."""
        for stream_id, flow in list(self._flows.items()):
            while flow.is_finishing and not (flow.is_over or flow.is_read):
                read = self._engine.read_into(self.number, stream_id, buffers.received)
                if read is None:
                    break
                self._take(flow, buffers.received, *read)
                if read[1] is not None:
                    break

    def on_received(self) -> None:
        """Look for the answer to a ping: something has come."""
        if self._pinged is not None:
            view, (began, before) = self._path.look(), self._pinged
            if view.acknowledgements > before:
                # Where other data is on the way, too, this may have been the answer to that.
                self.round_trip = view.round_trip if self.has_streams else trio.current_time() - began
                self._room.round_trip = min(self._room.round_trip, self.round_trip)
                self._pinged = None
                self._endpoint.pinging.discard(self)
                self._pongs.unpark_all()
                self.reactor.yield_soon()

    def _read(self, stream_id: int) -> None:
        """Hand on what has come, up to what may be held."""
        flow = self._flows.get(stream_id)
        if flow is None or flow.is_over or flow.is_read:
            return
        while flow.held < HELD:
            view = buffers.received[: HELD - flow.held]
            read = self._engine.read_into(self.number, stream_id, view)
            if read is None:
                self._aborted(flow)
                return
            self._take(flow, view, *read)
            if read[1] is not None or flow.is_over:
                return
        if self._engine.is_reset(self.number, stream_id):
            self._aborted(flow)
        flow.is_paused = True

    def _take(self, flow: Flow, view: memoryview, size: int, end: bool | None) -> None:
        """Hand on bytes, and the peer's end if that is behind them."""
        flow.is_read = end is True
        if size:
            flow.held += size
            flow.stream.on_data([view[:size]], size)
        if flow.is_read:
            flow.stream.on_finished()

    def resume(self) -> None:
        """Take what happened before the host knew us, and go on where there is room again, of readers or of the engine's.

        That one all streams share, and the engine names them in no fair order: who waits longest comes first.
        """
        early, self._early = self._early, []
        for kind, stream_id in early:
            self._happened(kind, stream_id)
        resumed, self._resumed = self._resumed, []
        for stream_id in resumed:
            self._read(stream_id)
        writable, self._writable = self._writable, []
        waiting = [(flow.served, stream_id) for stream_id in writable if (flow := self._flows.get(stream_id))]
        for _, stream_id in sorted(waiting):
            self._write_on(stream_id)

    def _aborted(self, flow: Flow) -> None:
        """Take the peer's reset: neither direction goes on, whichever the peer has named."""
        flow.is_over = True
        self.reset(flow.stream.stream_id)
        self.forget(flow.stream)
        flow.stream.on_aborted(End.PEER_RESET)

    # -- sending --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is to be sent, as far as it can leave now."""
        if self._resumed:
            self._endpoint.resumed.add(self)
        self._endpoint.flush()

    def _send_window(self, stream_id: int) -> int:
        flow = self._flows.get(stream_id)
        return 0 if flow is None or flow.is_full or flow.is_over or flow.is_stopped else BATCH

    def answer_window(self, stream_id: int) -> int:
        """Return how many bytes of an answer may be sent: where the engine takes none, they wait here, in order."""
        flow = self._flows.get(stream_id)
        return 0 if flow is None or flow.is_over else BATCH - len(flow.unsent)

    def batch_views(self, size: int) -> Sequence[memoryview]:
        """Return the memory in which `send_batch` wants its payload, for `size` bytes or, beside messages, fewer."""
        return [
            buffers.batch[: min(size, MAX_PAYLOAD if self.now() < self._endpoint.messages_until else BATCH)]
        ]

    def send_batch(self, stream_id: int, size: int) -> None:
        """Send `size` bytes of payload that lie in the batch's memory."""
        self.send(stream_id, buffers.batch[:size])

    def send(self, stream_id: int, data: Buffer) -> None:
        """Send a copy of `data`, within the stream's window."""
        flow = self._flows.get(stream_id)
        if flow is not None and not flow.is_over:
            self._make_way(flow.carries_messages(len(data)))
            self._write(flow, flow.unsent + data if flow.is_full else data)
            self._endpoint.flush()

    def _make_way(self, is_message: bool) -> None:
        """Keep short what stands in front of messages, as long as they come; what is on the way already is in front of all."""
        endpoint, now = self._endpoint, self.now()
        if is_message:
            endpoint.messages_until = now + HOLD
        if self._room.is_narrow is not (now < endpoint.messages_until):
            self._room.change()

    def _write(self, flow: Flow, data: Buffer) -> None:
        """Have the engine take data until it says that it takes no more; the rest is kept, and closes the window.

        Only where it has said so does it tell when there is room again.
        """
        rest = memoryview(data)
        while rest:
            taken = self._engine.write(self.number, flow.stream.stream_id, rest)
            if taken is None:
                flow.is_full = True  # it has not taken all, and never will
                self._stop(flow.stream.stream_id)
                return
            if not taken:
                break
            rest = rest[taken:]
            flow.served = flow.served if rest and taken < TURN else self.now()
        flow.unsent, flow.is_full = bytes(rest), bool(rest)

    def _write_on(self, stream_id: int) -> None:
        flow = self._flows.get(stream_id)
        if flow is None or not flow.is_full:
            return
        self._write(flow, flow.unsent)
        if flow.is_full:
            return
        if flow.is_finishing:
            self._finish(stream_id)
        if flow.is_over:
            self._flows.pop(stream_id, None)
        elif not flow.is_finishing:
            flow.stream.on_window()

    def _stop(self, stream_id: int) -> None:
        """Take it that the peer reads no further. It may still send (RFC 9000, section 3.5), or just have expected nothing."""
        flow = self._flows.get(stream_id)
        if flow is None:
            return
        must_deliver = flow.is_full or flow.stream.must_deliver
        flow.unsent, flow.is_full = b"", False
        if flow.is_over:
            self.reset(stream_id)  # what was left to send nobody takes
        elif must_deliver and not flow.is_stopped:
            flow.is_stopped = True
            flow.stream.on_stopped()

    def take_turn(self, send: Callable[[], None]) -> None:
        """Call `send` at once: the engine has streams take turns."""
        send()

    def consumed(self, stream_id: int, size: int) -> None:
        """Note that received bytes have left our memory; whoever calls this flushes then."""
        flow = self._flows.get(stream_id)
        if flow is not None:
            flow.held -= size
            if flow.is_paused and flow.held < HELD:
                flow.is_paused = False
                self._resumed.append(stream_id)

    def finish(self, stream_id: int) -> None:
        """Send a stream's FIN."""
        flow = self._flows.get(stream_id)
        if flow is not None:
            flow.is_finishing = True
            if not flow.is_full:
                self._finish(stream_id)
            self._endpoint.flush()

    def _finish(self, stream_id: int) -> None:
        if self._engine.finish(self.number, stream_id):
            self._undelivered.add(stream_id)

    def reset(self, stream_id: int) -> None:
        """Abort a stream at the peer's end; what a tunnel has sent last arrives before, if it can."""
        flow = self._flows.pop(stream_id, None)
        self._undelivered.discard(stream_id)
        if flow is not None and flow.end() and self._nursery is not None:
            with suppress(RuntimeError):  # cancelled from outside, the connection ends at this moment
                self._nursery.start_soon(self._reset_later, stream_id)
                self._undelivered.add(stream_id)
                self.reactor.yield_soon()
        self._engine.reset(self.number, stream_id, sending=stream_id not in self._undelivered)
        self._endpoint.flush()

    async def _reset_later(self, stream_id: int) -> None:
        """Abort a stream when what was sent on it should have come: a reset throws away what has not (RFC 9000, section 3.2)."""
        await trio.sleep(2 * self._path.look().round_trip + LAST)
        self._undelivered.discard(stream_id)
        self._engine.reset(self.number, stream_id, sending=True)
        self._endpoint.flush()
        self._wake(self._deliveries)

    # -- streams --------------------------------------------------------------------------------------------------

    def _open_id(self) -> int | None:
        return self._engine.open(self.number)

    def _enrol(self, stream: MuxedStream) -> MuxedStream:
        self._flows[stream.stream_id] = Flow(stream)
        return super()._enrol(stream)

    def forget(self, stream: MuxedStream) -> None:
        """Drop a stream that has ended; what it has sent leaves all the same."""
        super().forget(stream)
        flow = self._flows.get(stream.stream_id)
        if flow is not None:
            flow.is_over = True
            if not flow.is_full:
                del self._flows[stream.stream_id]

    def _send_ping(self) -> None:
        self._pinged = trio.current_time(), self._path.look().acknowledgements
        self._endpoint.pinging.add(self)
        for _ in range(2):  # a peer may wait for a second packet before it acknowledges the first
            self._engine.ping(self.number)
            self._endpoint.flush()

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def is_delivering(self) -> bool:
        """Whether something that was sent has yet to arrive: nobody sends it again when we are gone."""
        return not self.is_closed and (
            bool(self._undelivered) or any(flow.is_full for flow in self._flows.values())
        )

    def _progressed(self) -> bool:
        return self._path.progressed()

    def _release(self) -> None:
        self._flows.clear()
        self._endpoint.release(self)

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self._is_initiator

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the peer's address."""
        return [Multiaddr(f"{socket_address(self.get_remote_address(), 'udp')}/quic-v1")]

    def get_remote_address(self) -> tuple[str, int]:
        """Return the peer's host and port, the last ones where it has moved."""
        return self._path.look()[:2]

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that have reached the peer, or are on the way, and that have come from it."""
        return self._path.look()[4:]
