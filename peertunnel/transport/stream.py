"""One stream of a multiplexed connection.

What arrives goes, in this order, to the negotiation while it lasts, to the joint if there is one, and otherwise to
an inbox that `read` empties. The connection calls the `on_` methods from its reader; none of them waits.
"""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.multistream import Initiator, Responder
from peertunnel.streams import End, Outcome
from peertunnel.transport.splice import Splice

if TYPE_CHECKING:
    from peertunnel.transport.connection import MuxedConnection

_WRITE_SIZE = 256 * 1024  # bytes of `write` that are copied at a time: the window that a stream starts with


class Joint(Protocol):
    """What a stream is joined to: a socket, or another stream. Nothing of it waits."""

    def deliver(self, views: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes from the peer, and tell the stream when they are consumed; the views are valid only now."""
        ...

    def finish(self) -> None:
        """Take the peer's FIN."""
        ...

    def stop(self) -> None:
        """Send nothing more, for the peer takes none of it; it may itself still send."""
        ...

    def send_up(self) -> None:
        """Send, since the peer's window, which was used up, has opened."""
        ...

    def abort(self, end: End) -> None:
        """Stop: the stream has been aborted."""
        ...


class MuxedStream:
    """A stream; `splice` joins it to a socket, `join` to anything else, `read` and `write` serve what is left.

    Args:
        connection: the connection that carries it.
        stream_id: its id there.
        negotiation: settles the protocol first; None if there is none.

    Attributes:
        protocol: what was agreed on, None before.
        end: why the stream was aborted, None while it was not.
        is_chat: strangers have such streams for nothing, a ping or a question: it alone doesn't keep a connection.
        sent_bytes: bytes that the joint has sent.
        received_bytes: bytes that the joint has delivered.
    """

    __slots__ = (
        "_inbox",
        "_is_discarding",
        "_is_finished",
        "_joint",
        "_negotiation",
        "_peer_is_finished",
        "_waiting",
        "end",
        "is_chat",
        "muxed_conn",
        "protocol",
        "received_bytes",
        "sent_bytes",
        "stream_id",
    )

    def __init__(
        self, connection: "MuxedConnection", stream_id: int, negotiation: Initiator | Responder | None = None
    ) -> None:
        self.muxed_conn: MuxedConnection = connection
        self.stream_id = stream_id
        self.protocol: str | None = None
        self.end: End | None = None
        self.is_chat = isinstance(negotiation, Responder)  # until it is known what it is for
        self.sent_bytes = self.received_bytes = 0
        self._negotiation = negotiation
        self._joint: Joint | None = None
        self._inbox = bytearray()
        self._is_discarding = False
        self._is_finished = False
        self._peer_is_finished = False
        self._waiting: trio.lowlevel.ParkingLot | None = None  # a tunnel needs none

    @property
    def peer(self) -> str:
        """The peer id of the other end."""
        return str(self.muxed_conn.peer_id)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent or received."""
        return self.end is not None or (self._is_finished and self._peer_is_finished)

    @property
    def must_deliver(self) -> bool:
        """Whether something sends on the stream of which nothing may be lost."""
        return self._joint is not None and not self._is_finished

    # -- what the connection reports ------------------------------------------------------------------------------

    def on_data(self, views: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes of payload; the views are valid until this returns."""
        if self._negotiation is not None:
            self._negotiate(self._negotiation, b"".join(views))
        elif self._joint is not None:
            self._joint.deliver(views, size)
        elif self._is_discarding:
            self.consumed(size)
        else:
            for view in views:
                self._inbox += view
            self.wake()

    def on_finished(self) -> None:
        """Take the peer's FIN."""
        self._peer_is_finished = True
        if self._negotiation is not None:
            self._fail(End.PEER_RESET)
            return
        if self._joint is not None:
            self._joint.finish()
        self._forget_if_done()
        self.wake()

    def on_stopped(self) -> None:
        """Take it that the peer reads no further, though not all was sent."""
        if self._joint is None:
            self._fail(End.PEER_RESET)
        else:
            self._joint.stop()

    def on_late(self) -> None:
        """Give up on a peer that doesn't settle the protocol.

        Over QUIC a stream is open as soon as a later one is (RFC 9000, section 3.2): its first bytes may wait for room.
        """
        is_silent = isinstance(self._negotiation, Responder) and not self._negotiation.has_heard
        if not is_silent or self.muxed_conn.transport == "tcp":
            self.abort()

    def on_aborted(self, end: End) -> None:
        """Take the peer's RST, or the loss of the connection."""
        if self.end is None:
            self.end = end
            if self._joint is not None:
                self._joint.abort(end)
            self.wake()

    def let_go(self) -> None:
        """Let go of the joint, as it ends: it holds us, and a cycle would wait for the collector; thousands cost time."""
        self._joint = None
        self._is_discarding = True

    def _negotiate(self, negotiation: Initiator | Responder, data: bytes) -> None:
        try:
            if isinstance(negotiation, Initiator):
                rest = negotiation.receive(data)
                if negotiation.agreed is False:
                    self._fail(End.NOT_SPOKEN)
                    return
                agreed = negotiation.agreed is True
            else:
                answer, rest = negotiation.receive(data)
                if len(answer) > self.muxed_conn.answer_window(self.stream_id):
                    self._fail(End.PEER_RESET)  # the peer has aborted the stream meanwhile, or leaves no room
                    return
                if answer:
                    self.muxed_conn.send(self.stream_id, answer)
                self.protocol = negotiation.protocol
                agreed = self.protocol is not None
        except RemoteProtocolError:
            self._fail(End.PEER_RESET)
            return
        self.consumed(len(data) - len(rest))
        if agreed:
            self._negotiation = None
            if isinstance(negotiation, Responder):
                self.is_chat = False
                self.muxed_conn.on_negotiated(self)
            elif self._is_finished:
                self._send_fin()
            if rest:
                self.on_data([memoryview(rest)], len(rest))

    def _fail(self, end: End) -> None:
        self._reset()
        self.on_aborted(end)

    # -- for tunnels ----------------------------------------------------------------------------------------------

    def attach(
        self,
        sock: socket.socket,
        on_end: Callable[[Outcome], None],
        replay: bytes | None = None,
        *,
        is_silent: bool = False,
    ) -> None:
        """Attach the stream to a connected, non-blocking socket; see `streams.Stream`."""
        joint = Splice(self, sock, replay, on_end)
        self.join(joint)
        if is_silent:
            joint.listen()
        else:
            joint.send_up()
        self.muxed_conn.flush()

    async def splice(self, sock: socket.socket, replay: bytes | None = None) -> Outcome:
        """Attach the stream to a socket and wait for the end; see `streams.Stream`."""
        outcomes: list[Outcome] = []
        ended = trio.Event()

        def end(outcome: Outcome) -> None:
            outcomes.append(outcome)
            ended.set()
            self.muxed_conn.reactor.yield_soon()

        self.attach(sock, end, replay)
        try:
            await ended.wait()
        finally:
            if not outcomes:  # cancelled from outside
                self.abort()
        return outcomes[0]

    def join(self, joint: Joint) -> None:
        """Hand everything that comes to a joint, beginning with what has come already."""
        self._joint = joint
        inbox, self._inbox = self._inbox, bytearray()
        if inbox:
            joint.deliver([memoryview(inbox)], len(inbox))
        if self._peer_is_finished:
            joint.finish()
        if self.end is not None:
            joint.abort(self.end)
        self.muxed_conn.flush()  # the inbox may have held a full window, and the peer waits for the next

    def abort(self, end: End = End.LOCAL_RESET) -> None:
        """Reset the stream, in both directions."""
        self._fail(end)

    def finish(self) -> None:
        """Send FIN; nothing can be sent afterwards.

        On a stream of ours it waits for the peer's consent: one that rust-libp2p drops ends with FIN instead of RST
        once it has ours, and would pass for an empty answer.
        """
        if not self._is_finished and self.end is None:
            self._is_finished = True
            if not isinstance(self._negotiation, Initiator):
                self._send_fin()

    def _send_fin(self) -> None:
        self.muxed_conn.finish(self.stream_id)
        self._forget_if_done()

    def consumed(self, size: int) -> None:
        """Note that `size` received bytes have left our memory; whoever calls this flushes the connection then."""
        self.muxed_conn.consumed(self.stream_id, size)

    def on_window(self) -> None:
        """Take more of the peer's window, which was used up."""
        if self._joint is not None:
            self._joint.send_up()
        else:
            self.wake()

    def wake(self) -> None:
        """Wake whoever waits in `changed`."""
        if self._waiting:
            self._waiting.unpark_all()
            self.muxed_conn.reactor.yield_soon()

    async def changed(self) -> None:
        """Wait until something has arrived, the window has opened, or the stream has ended."""
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()

    def _reset(self) -> None:
        self.muxed_conn.reset(self.stream_id)
        self.muxed_conn.forget(self)

    def _forget_if_done(self) -> None:
        if self._is_finished and self._peer_is_finished:
            self.muxed_conn.forget(self)

    # -- for protocols of messages ---------------------------------------------------------------------------------

    async def read(self, n: int | None = None) -> bytes:
        """Return up to `n` bytes, as soon as there are any.

        Raises:
            MuxedStreamEOF: the peer sent FIN and everything before it was read.
            MuxedStreamReset: the stream was aborted, or the connection was lost: what was read may be cut short.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self.end is not None:
                raise MuxedStreamReset(self.end.value)
            if self._peer_is_finished:
                raise MuxedStreamEOF("the peer finished the stream")
            await self.changed()
        size = len(self._inbox) if n is None or n < 0 else n
        data = bytes(self._inbox[:size])
        del self._inbox[:size]
        self.consumed(len(data))
        self.muxed_conn.flush()
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for the peer's window as long as the peer lives.

        Raises:
            MuxedStreamClosed: the stream was closed for writing.
            MuxedStreamReset: the stream was aborted, or the connection was lost.
        """
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            window = await self._ready_to_send()
            part = rest[: min(window, _WRITE_SIZE)]
            self.muxed_conn.send(self.stream_id, part)
            rest = rest[len(part) :]

    async def _ready_to_send(self) -> int:
        """Wait for our turn on the connection and for the peer's window; return the window in bytes."""
        connection = self.muxed_conn
        while True:
            if self.end is not None:
                raise MuxedStreamReset(self.end.value)
            if self._is_finished:
                raise MuxedStreamClosed("the stream is closed for writing")
            if connection.is_blocked:
                turn = trio.Event()
                connection.take_turn(turn.set)
                await turn.wait()
            elif window := connection.send_window(self.stream_id):
                return window
            else:
                await self.changed()

    async def close_write(self) -> None:
        """Send FIN and go on reading."""
        self.finish()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """Send FIN and drop whatever still arrives."""
        self._is_discarding = True
        self.is_chat = True  # a peer that never ends its own direction keeps nothing but the stream
        self.consumed(len(self._inbox))
        self._inbox.clear()
        self.finish()
        self.muxed_conn.flush()
        await trio.lowlevel.checkpoint()
