"""The joint of a stream and a local socket: the innermost loop of a tunnel.

Local bytes are read straight into the batch buffer, framed and sealed in place and written with one call; bytes from
the peer go from the decryption buffer to the local socket, and are copied only when that socket is full. A slow local
reader costs its own stream's window and nothing else.
"""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from peertunnel import sockets
from peertunnel.protocols.yamux import MAX_PAYLOAD
from peertunnel.streams import REPLAY_LIMIT, End, Outcome
from peertunnel.transport.reactor import ERROR, READ, WRITE

if TYPE_CHECKING:
    from peertunnel.transport.stream import MuxedStream

_WRITE_SIZE = 1024 * 1024  # bytes offered to a local socket at a time
_SMALL = 4096  # bytes up to which a copy costs less than a record and a system call of its own
TAKE_POLL, LAST_TAKE_POLL = 0.02, 0.5  # seconds between looks at what a socket's other end has yet to take
_NOTHING = memoryview(b"")
_MAX_VIEWS = 1024  # buffers of one sendmsg; IOV_MAX of Linux, macOS and the BSDs


class Splice:
    """Both directions of one tunnel; the reactor calls it for the socket, the stream for the peer.

    Args:
        stream: the stream; it hands over what arrives.
        sock: connected, non-blocking stream socket, which belongs to the splice.
        replay: bytes to send ahead of the socket's; not None asks to keep what was sent until the peer answers.
        on_end: called once, when both directions have ended or one was aborted.
    """

    __slots__ = (
        "_ahead",
        "_connection",
        "_end",
        "_is_bulk",
        "_is_deaf",
        "_is_stopped",
        "_local_is_finished",
        "_on_end",
        "_peer_is_finished",
        "_pending",
        "_registration",
        "_replay",
        "_sock",
        "_stream",
    )

    def __init__(
        self,
        stream: "MuxedStream",
        sock: socket.socket,
        replay: bytes | None,
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._stream = stream
        self._connection = stream.muxed_conn
        self._sock = sock
        self._registration = stream.muxed_conn.reactor.register(sock, self)
        self._ahead = memoryview(replay) if replay else _NOTHING
        self._replay = None if replay is None else bytearray()
        self._pending = bytearray()  # bytes from the peer that the socket has not taken
        self._is_bulk = False  # whether the socket gave a whole buffer at a time
        self._local_is_finished = False
        self._peer_is_finished = False
        self._end: End | None = None
        self._is_deaf = False  # the socket takes nothing more, but what it has sent before goes on
        self._is_stopped = False  # the peer takes nothing more, but what it sends goes on
        self._on_end = on_end

    # -- from the local socket into the stream --------------------------------------------------------------------

    def send_up(self) -> None:
        """Send one batch, as soon as the connection and the peer's window allow it.

        Until then the socket is not read: the connection calls again when it is this stream's turn, and the stream
        when the window opens.
        """
        if self._end is not None or self._local_is_finished:
            return
        if self._connection.is_blocked:
            self._pause()
            self._connection.take_turn(self.send_up)
            return
        window = self._connection.send_window(self._stream.stream_id)
        if self._is_stopped and self._replay is None:
            self._discard()
        elif not window:
            self._registration.replace(READ, ERROR)  # who doesn't read may take for ever
        elif self._ahead:
            self._send_ahead(window)
        else:
            self._read_and_send(window)

    on_readable = send_up

    def listen(self) -> None:
        """Wait for something to send: to look for it costs as much as to send it, and mostly there is nothing yet."""
        if self._end is None:
            self._registration.add(READ)

    def _pause(self) -> None:
        self._registration.remove(READ | ERROR)

    def _read_and_send(self, window: int) -> None:
        connection = self._connection
        views = connection.batch_views(window) if self._is_bulk else [connection.first_view[:window]]
        try:
            # Asked for one buffer the system answers sooner, and mostly there is no more.
            size = self._sock.recvmsg_into(views)[0] if self._is_bulk else self._sock.recv_into(views[0])
        except BlockingIOError:
            self._registration.add(READ)
            return
        except OSError:
            self._stream.abort()
            return
        if not size and self._is_deaf:
            self._stream.abort()
            return
        if not size:
            self._finish_local()
            return
        # Before it is sent: what happens meanwhile may use the memory, or end the stream.
        self._count(size, views)
        if size > _SMALL:
            connection.send_batch(self._stream.stream_id, size)
        else:
            connection.send(self._stream.stream_id, views[0][:size])
        if self._end is not None:  # the peer has stopped the stream meanwhile
            return
        has_more = size > _SMALL and size == sum(map(len, views))
        self._is_bulk = has_more or size > MAX_PAYLOAD
        if has_more and connection.is_blocked:
            self._pause()  # there is more, and its turn comes without asking the system for it
            connection.take_turn(self.send_up)
        else:
            self._registration.add(READ)

    def _finish_local(self) -> None:
        """Take the socket's end."""
        self._local_is_finished = True
        self._stream.finish()
        self._end_if_done()
        if self._end is None:
            self._registration.replace(READ, ERROR)  # a reset may follow an end

    def _discard(self) -> None:
        """Read what nobody takes, as the system does of a socket that is shut down for reading: an end may be behind it."""
        try:
            size = self._sock.recv_into(self._connection.first_view)
        except BlockingIOError:
            size = -1
        except OSError:
            self._stream.abort()
            return
        if size:
            self._registration.add(READ)
        else:
            self._finish_local()

    def _send_ahead(self, window: int) -> None:
        part, self._ahead = self._ahead[:window], self._ahead[window:]
        self._count(len(part), [part])
        self._connection.send(self._stream.stream_id, part)
        self.send_up()

    def _count(self, size: int, views: Sequence[memoryview]) -> None:
        self._stream.sent_bytes += size
        if self._replay is not None:
            if len(self._replay) + size > REPLAY_LIMIT:
                self._replay = None
            else:
                for view in views:
                    self._replay += view[:size]
                    size -= min(size, len(view))

    # -- from the stream into the local socket --------------------------------------------------------------------

    def deliver(self, views: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes from the peer; the views are valid until this returns."""
        self._replay = None
        if self._end is not None or self._is_deaf:
            return
        if self._pending:
            self.on_writable()  # what fits now need not be copied behind what is kept
        if self._is_deaf:
            return
        if self._pending or self._end is not None:
            for view in views:
                self._pending += view
            return
        if len(views) > _MAX_VIEWS:
            views = [memoryview(b"".join(views))]
        try:
            taken = self._sock.send(views[0]) if len(views) == 1 else self._sock.sendmsg(views)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._go_deaf()
            return
        self._delivered(taken)
        if taken < size:
            self._keep(views, taken)

    def _go_deaf(self) -> None:
        """Pass on what the socket has sent before its reset, as the system does, and then the reset."""
        self._is_deaf = True
        self._pending.clear()
        self._registration.remove(WRITE)
        if self._local_is_finished or self._is_stopped:
            self._stream.abort()
        else:
            self.send_up()

    def _keep(self, views: Sequence[memoryview], taken: int) -> None:
        """Copy what the socket did not take, and have it written when it can."""
        for view in views:
            if taken < len(view):
                self._pending += view[taken:]
            taken = max(0, taken - len(view))
        self._registration.add(WRITE)

    def on_writable(self) -> None:
        """Write on what the local side did not take before."""
        try:
            with memoryview(self._pending) as pending:
                taken = self._sock.send(pending[:_WRITE_SIZE])
        except BlockingIOError:
            return
        except OSError:
            self._go_deaf()
            return
        del self._pending[:taken]
        self._delivered(taken)
        self._connection.flush()
        if not self._pending:
            self._registration.remove(WRITE)
            if self._peer_is_finished:
                self.finish()

    def _delivered(self, size: int) -> None:
        self._stream.received_bytes += size
        self._connection.consumed(self._stream.stream_id, size)

    def finish(self) -> None:
        """Take the peer's FIN: pass it on once everything before it was delivered."""
        if not self._is_stopped:
            self._replay = None
        self._peer_is_finished = True
        if self._pending or self._end is not None or self._is_deaf:
            return
        if self._is_stopped:
            trio.lowlevel.spawn_system_task(self._reset_when_taken)
            self._connection.reactor.yield_soon()
            return
        if self._local_is_finished:
            self.abort(End.FINISHED)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the local side has closed already, with all data taken

    def stop(self) -> None:
        """Take it that the peer reads no further: what it sends is delivered still, and then the socket reset.

        So says a Go program that closes a stream, and a Rust one that drops it amid a transfer, which must not pass for
        an end.
        """
        self._is_stopped = True
        if self._is_deaf:
            self._stream.abort()
            return
        if self._peer_is_finished:
            self.finish()
        self.send_up()

    async def _reset_when_taken(self) -> None:
        """Reset the socket as soon as its other end has what was sent: a reset throws away what it has not."""
        pause = TAKE_POLL
        while self._end is None and sockets.unacknowledged(self._sock):
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_TAKE_POLL)
        if self._end is None:
            self._stream.abort(End.PEER_RESET)

    # -- the end --------------------------------------------------------------------------------------------------

    def _end_if_done(self) -> None:
        is_done = self._local_is_finished and self._peer_is_finished and not self._pending
        if is_done and not self._is_stopped:
            self.abort(End.FINISHED)

    def abort(self, end: End) -> None:
        """Stop here: both directions are done, or the peer, the local side or the connection is gone."""
        if self._end is None:
            self._end = end
            self._registration.close()
            self._stream.let_go()
            kept = self._kept(end)
            if kept is None:
                sockets.end(self._sock, end is End.FINISHED)
            self._on_end(Outcome(end, self._stream.sent_bytes, self._stream.received_bytes, kept))

    def on_failure(self, error: Exception) -> None:
        """Give up on this tunnel: what came could not be handled."""
        self._stream.abort()

    def _kept(self, end: End) -> bytes | None:
        """Return what to send again on another stream, if that is still possible."""
        if end is not End.PEER_RESET or self._replay is None:
            return None
        return bytes(self._replay) + self._ahead
