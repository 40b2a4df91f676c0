"""The joint of two streams: a circuit through a relay, from one connection into another without a socket between.

What comes on one stream is framed in the batch buffer of the other's connection and sent with one call, as much as
the other peer's window and its socket take. The rest is kept, and the sender is given no credit for it: a circuit
holds at most one window each way. Circuits that wait for the same socket take turns, a frame each.
"""

from collections.abc import Sequence

import trio

from peertunnel.protocols.circuit import Limit
from peertunnel.protocols.yamux import MAX_PAYLOAD
from peertunnel.streams import End
from peertunnel.transport import buffers
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream


class Crossing:
    """Both directions of one circuit.

    Args:
        caller: the stream on which the circuit was asked for.
        destination: the stream on which it was taken.
        limit: what it may carry and how long it may last, None for no limit.
    """

    def __init__(self, caller: MuxedStream, destination: MuxedStream, limit: Limit | None) -> None:
        self._limit = limit or Limit(0, 0)
        self._ended = trio.Event()
        self._sides = (_Side(caller, self), _Side(destination, self))
        self._sides[0].other, self._sides[1].other = self._sides[1], self._sides[0]

    @property
    def carried(self) -> int:
        """How many bytes have been sent on so far, both ways together."""
        return sum(side.stream.sent_bytes for side in self._sides)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit to what it may carry, or to how long."""
        return self._limit != Limit(0, 0)

    @property
    def connections(self) -> tuple[MuxedConnection, MuxedConnection]:
        """The caller's connection and the destination's."""
        caller, destination = self._sides
        return caller.stream.muxed_conn, destination.stream.muxed_conn

    @property
    def peers(self) -> tuple[str, str]:
        """The peer ids of the caller and of the destination."""
        caller, destination = self._sides
        return caller.stream.peer, destination.stream.peer

    async def run(self) -> None:
        """Carry bytes until both directions have ended, either was aborted, or a limit is reached."""
        with trio.move_on_after(self._limit.seconds or float("inf")):
            try:
                for side in self._sides:
                    side.stream.join(side)
                await self._ended.wait()
            finally:
                self.abort()  # what has not ended by itself

    def allows(self, size: int) -> bool:
        """Return whether one direction may carry so many bytes in all."""
        return size <= (self._limit.bytes or size)

    def end_if_done(self) -> None:
        """Stop when both directions have ended."""
        if all(side.is_done for side in self._sides):
            self._end()

    def abort(self) -> None:
        """Reset both streams, unless the circuit has ended."""
        if not self._ended.is_set():
            self._end()
            for side in self._sides:
                if not side.stream.is_closed:
                    side.stream.abort()

    def _end(self) -> None:
        self._ended.set()
        for side in self._sides:
            side.stream.let_go()
            side.stream.muxed_conn.reactor.yield_soon()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is carried."""
        return self._ended.is_set()


class _Side:
    """One of the two streams: `deliver` takes what comes on it, `send` what is to go out on it.

    Attributes:
        stream: the stream.
        other: the side at which what comes here goes out.
        is_done: whether the FIN of the other side has been passed on here.
        is_stopped: whether the peer takes nothing more.
    """

    other: "_Side"

    def __init__(self, stream: MuxedStream, crossing: Crossing) -> None:
        self.stream = stream
        self.is_done = self.is_stopped = False
        self._crossing = crossing
        self._connection = stream.muxed_conn
        self._pending = bytearray()  # bytes that this stream has not taken
        self._is_waiting = False  # for our turn on the connection
        self._is_finishing = False

    # -- what comes on the stream ---------------------------------------------------------------------------------

    def deliver(self, views: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes from the peer; the views are valid until this returns."""
        if self._crossing.has_ended:
            return
        self.stream.received_bytes += size
        if self._crossing.allows(self.stream.received_bytes):
            self.other.send(views, size)
        else:
            self._crossing.abort()

    def finish(self) -> None:
        """Take the peer's FIN: pass it on once everything before it was sent."""
        self.other.send_fin()

    def stop(self) -> None:
        """Take it that the peer reads no further: what is left for it, and what comes for it yet, nobody takes."""
        self.is_stopped = True
        self.other.stream.consumed(len(self._pending))
        self._pending.clear()
        self.other.stream.muxed_conn.flush()
        if self._is_finishing:
            self.send_fin()

    def abort(self, end: End) -> None:
        """Stop here: the peer or the connection is gone, and the other peer must not take that for an end."""
        self._crossing.abort()

    # -- what goes out on it --------------------------------------------------------------------------------------

    def send(self, views: Sequence[memoryview], size: int) -> None:
        """Send bytes of the other peer on, and keep what can't leave now."""
        if self.is_stopped:
            self.other.stream.consumed(size)
            return
        sent = 0
        if not self._pending:
            while sent < size and (batch := self._send_batch(views, sent, size)):
                sent += batch
        if sent == size:
            return
        for view in views:
            if sent < len(view):
                self._pending += view[sent:]
            sent = max(0, sent - len(view))
        self._wait()

    def send_up(self) -> None:
        """Send one batch of what was kept; the next one comes after all who wait for the connection, too."""
        self._is_waiting = False
        if self._crossing.has_ended or not self._pending:
            return
        with memoryview(self._pending) as pending:
            sent = self._send_batch([pending], 0, len(pending))
        del self._pending[:sent]
        self.other.stream.muxed_conn.flush()
        if self._pending:
            self._wait()
        elif self._is_finishing:
            self.send_fin()

    def _send_batch(self, views: Sequence[memoryview], start: int, end: int) -> int:
        """Send a part of what lies between two offsets; return its size in bytes, 0 when nothing may leave now."""
        connection, stream_id = self._connection, self.stream.stream_id
        window = connection.send_window(stream_id)
        if connection.is_blocked or not window:
            return 0
        most = MAX_PAYLOAD if connection.is_contended else MAX_PAYLOAD * buffers.BATCH_FRAMES
        slots = connection.batch_views(min(end - start, window, most))
        size = min(end - start, window, sum(map(len, slots)))
        buffers.fill(slots, views, start)
        connection.send_batch(stream_id, size)
        self.stream.sent_bytes += size
        self.other.stream.consumed(size)
        return size

    def _wait(self) -> None:
        """Have `send_up` called when it is our turn; while the window is closed, the stream calls when it opens."""
        if not self._is_waiting and self._connection.send_window(self.stream.stream_id):
            self._is_waiting = True
            self._connection.take_turn(self.send_up)

    def send_fin(self) -> None:
        """Pass a FIN on, as soon as everything before it has left."""
        self._is_finishing = True
        if not self._pending and not self._crossing.has_ended:
            self.is_done = True
            self.stream.finish()
            self._crossing.end_if_done()
