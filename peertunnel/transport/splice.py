"""The joint of a stream and a local socket: the innermost loop of a tunnel.

Local bytes are read straight into the batch buffer, framed and sealed in place and written with one call; bytes from
the peer go from the decryption buffer to the local socket, and are copied only when that socket is full. A slow local
reader costs its own stream's window and nothing else.
"""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from peertunnel import sockets
from peertunnel.protocols.yamux import MAX_PAYLOAD
from peertunnel.streams import REPLAY_LIMIT, End, Outcome
from peertunnel.transport import buffers

if TYPE_CHECKING:
    from peertunnel.transport.stream import MuxedStream

_WRITE_SIZE = 1024 * 1024  # bytes offered to a local socket at a time
_MAX_VIEWS = 1024  # buffers of one sendmsg; IOV_MAX of Linux, macOS and the BSDs


class Splice:
    """Both directions of one tunnel.

    Args:
        stream: the stream; it hands over what arrives.
        sock: connected, non-blocking stream socket, which belongs to the splice.
        replay: bytes to send ahead of the socket's; not None asks to keep what was sent until the peer answers.
    """

    def __init__(self, stream: "MuxedStream", sock: socket.socket, replay: bytes | None) -> None:
        self._stream = stream
        self._connection = stream.muxed_conn
        self._sock = sock
        self._ahead = replay or b""
        self._replay = None if replay is None else bytearray()
        self._pending = bytearray()  # bytes from the peer that the socket has not taken
        self._is_writing = False
        self._peer_is_finished = False
        self._end: End | None = None
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Outcome:
        """Carry bytes until both directions have ended, or one was aborted."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    if self._is_writing:
                        self._nursery.start_soon(self._write_pending)
                    await self._send_up()
                    while not self._is_delivered:
                        await self._stream.changed()
                    self._end = End.FINISHED
        finally:
            if self._end is None:  # cancelled from outside
                self._stream.abort()
            self._close()
        end = self._end or End.LOCAL_RESET
        return Outcome(end, self._stream.sent_bytes, self._stream.received_bytes, self._kept(end))

    # -- from the local socket into the stream --------------------------------------------------------------------

    async def _send_up(self) -> None:
        ahead = memoryview(self._ahead)
        while ahead:
            try:
                part = ahead[: await self._stream.ready_to_send()]
            except MuxedStreamReset:
                return  # the scope is cancelled
            self._connection.send(self._stream.stream_id, part)
            self._sent(len(part), [part])
            ahead = ahead[len(part) :]
        while True:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                window = await self._stream.ready_to_send()
            except MuxedStreamReset:
                return  # the scope is cancelled
            if self._read_and_send(window):
                return

    def _read_and_send(self, window: int) -> bool:
        """Send what the socket has, up to a batch; return True at its end."""
        views = buffers.payload_views(min(window, len(buffers.batch)))
        try:
            size = self._sock.recvmsg_into(views)[0]
        except BlockingIOError:
            self._connection.pass_turn()
            return False
        except OSError:
            self._fail_locally()
            return True
        if size:
            self._connection.send_batch(self._stream.stream_id, size)
            self._sent(size, views)
        else:
            self._stream.finish()
            self._connection.pass_turn()
        return not size

    def _sent(self, size: int, views: Sequence[memoryview]) -> None:
        self._stream.sent_bytes += size
        if self._replay is not None:
            if len(self._replay) + size > REPLAY_LIMIT:
                self._replay = None
            else:
                self._replay += b"".join(views[: size // MAX_PAYLOAD + 1])[:size]
        self._connection.pass_turn()

    # -- from the stream into the local socket --------------------------------------------------------------------

    def deliver(self, views: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes from the peer; the views are valid until this returns."""
        self._replay = None
        if self._end is not None:
            return
        if self._is_writing:
            for view in views:
                self._pending += view
            return
        if len(views) > _MAX_VIEWS:
            views = [memoryview(b"".join(views))]
        try:
            taken = self._sock.sendmsg(views)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._fail_locally()
            return
        self._delivered(taken)
        if taken < size:
            self._keep(views, taken)

    def _keep(self, views: Sequence[memoryview], taken: int) -> None:
        """Copy what the socket did not take, and have it written when it can."""
        for view in views:
            if taken < len(view):
                self._pending += view[taken:]
            taken = max(0, taken - len(view))
        self._is_writing = True
        if self._nursery is not None:
            self._nursery.start_soon(self._write_pending)

    async def _write_pending(self) -> None:
        while self._pending and self._end is None:
            try:
                await trio.lowlevel.wait_writable(self._sock.fileno())
                with memoryview(self._pending) as pending:
                    taken = self._sock.send(pending[:_WRITE_SIZE])
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                self._fail_locally()
                return
            del self._pending[:taken]
            self._delivered(taken)
            self._connection.flush()
        self._is_writing = False
        if self._peer_is_finished:
            self.finish()

    def _delivered(self, size: int) -> None:
        self._stream.received_bytes += size
        self._stream.consumed(size)

    def finish(self) -> None:
        """Take the peer's FIN: pass it on once everything before it was delivered."""
        self._replay = None
        self._peer_is_finished = True
        if self._is_delivered and self._end is None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the local side has closed already, with all data taken
            self._stream.wake()

    @property
    def _is_delivered(self) -> bool:
        return self._peer_is_finished and not self._is_writing

    # -- the end --------------------------------------------------------------------------------------------------

    def abort(self, end: End) -> None:
        """Take the peer's RST, or the loss of the connection."""
        if self._end is None:
            self._end = end
            self._scope.cancel()

    def _fail_locally(self) -> None:
        """The local socket broke: tell the peer."""
        if self._end is None:
            self._stream.abort()

    def _kept(self, end: End) -> bytes | None:
        """Return what to send again on another stream, if that is still possible."""
        return bytes(self._replay) if end is End.PEER_RESET and self._replay is not None else None

    def _close(self) -> None:
        if self._end is not None and self._kept(self._end) is not None:
            return
        if self._end is End.FINISHED:
            sockets.close(self._sock)
        else:
            sockets.abort(self._sock)
