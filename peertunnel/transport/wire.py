"""A secured session on a socket: what Noise and TLS have in common below the multiplexer.

After the handshake the keys and the socket are taken over, and bytes are opened and sealed here in batches
of up to a megabyte: one read, one write.
"""

import socket
from abc import abstractmethod
from collections.abc import Callable

import trio

from peertunnel import sockets
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer, Channel
from peertunnel.transport.reactor import READ, WRITE, Reactor


class SocketChannel(Channel):
    """A secured session on a non-blocking TCP socket.

    Args:
        sock: connected socket; belongs to the channel from now on.
        reactor: watches the socket.
        early: plaintext that the handshake had read ahead.

    Attributes:
        kept: what goes in front of the next bytes: part of a record.
    """

    def __init__(self, sock: socket.socket, reactor: Reactor, early: bytes) -> None:
        self.is_blocked = False
        self.kept = b""
        self._sock = sock
        self._registration = reactor.register(sock, self)
        self._early = early
        self._output: memoryview | None = None  # sealed bytes that the socket has not taken
        self._start = self._end = 0
        self._finishing = False
        self._written = self._acknowledged = 0  # bytes, of all that was sent
        self._ended = trio.Event()
        self._failure: Exception | None = None

    @abstractmethod
    def open(self, kept: int, size: int) -> None:
        """Hand over the plaintext of what lies in the receive buffer.

        Args:
            kept: bytes at its start, `kept` as the call before has left it.
            size: bytes behind them that have just come.

        Raises:
            RemoteProtocolError: they are not what the peer sealed.
        """

    @abstractmethod
    def seal(self, batch: tuple[Buffer, ...]) -> tuple[memoryview, int]:
        """Return a buffer, and how many bytes of it are the sealed batch."""

    async def run(self, received: Callable[[memoryview], None], drained: Callable[[], None]) -> None:
        self._received, self._drained = received, drained
        if self._early:
            received(memoryview(self._early))
            self._early = b""
        self._open(0)
        if not self._ended.is_set():
            self._registration.add(READ)
            try:
                await self._ended.wait()
            finally:
                self._stop(None)
        if self._failure is not None:
            raise self._failure

    def on_readable(self) -> None:
        """Read once and hand over all that is complete."""
        try:
            kept = len(self.kept)
            size = self._sock.recv_into(buffers.received[kept:] if kept else buffers.received)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop(error)
            return
        if size:
            self._open(size)
        else:
            self._stop(None)

    def _open(self, size: int) -> None:
        kept = self.kept
        if kept:
            buffers.received[: len(kept)] = kept
        try:
            self.open(len(kept), size)
        except RemoteProtocolError as error:
            self._stop(error)

    def send(self, *batch: Buffer) -> None:
        self._start = 0
        try:
            self._output, self._end = self.seal(batch)
        except Exception as error:
            self._stop(error)  # the batch is lost, and nothing must follow as if it were not
            raise
        self._flush()

    def _flush(self) -> None:
        """Send what is sealed, as far as the socket takes it."""
        output = self._output
        if output is None:
            return
        try:
            size = self._sock.send(output[self._start : self._end])
            self._start += size
            self._written += size
        except BlockingIOError:
            pass
        except OSError:
            self._start = self._end  # the reader learns it too, and tells
        was_blocked, self.is_blocked = self.is_blocked, self._start < self._end
        if self.is_blocked:
            if not was_blocked:
                self._registration.add(WRITE)
            return
        self._output = None
        buffers.give_output(output)
        if self._finishing:
            self._shut_down()

    def on_writable(self) -> None:
        """Send on, and let the next batch come."""
        self._flush()
        if not self.is_blocked:
            self._drained()
        if not self.is_blocked and not self._ended.is_set():
            self._registration.remove(WRITE)

    def on_failure(self, error: Exception) -> None:
        """End the connection: what came could not be handled."""
        self._stop(error)

    def _stop(self, failure: Exception | None) -> None:
        if not self._ended.is_set():
            self._failure = failure
            self._ended.set()
            self._registration.wait_for(0)

    @property
    def unacknowledged(self) -> int:
        return sockets.unacknowledged(self._sock)

    def progressed(self) -> bool:
        waiting = self.unacknowledged
        before, self._acknowledged = self._acknowledged, self._written - waiting
        return waiting > 0 and self._acknowledged > before

    def finish(self) -> None:
        self._finishing = True
        if not self.is_blocked:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer was faster

    def close(self) -> None:
        self._close(in_order=True)

    def abort(self) -> None:
        self._close(in_order=False)

    def _close(self, in_order: bool) -> None:
        self._stop(ConnectionAbortedError("the connection was closed"))
        self._registration.wait_for(0)  # a tunnel that sent after the peer's end may have asked for it again
        sockets.end(self._sock, in_order)
