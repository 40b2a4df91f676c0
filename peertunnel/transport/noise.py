"""A Noise session on a socket: the data path below the multiplexer.

After the library's handshake the keys, the nonces and the socket are taken over, and records are opened and sealed
here in batches of up to a megabyte: one read, one write.
"""

import socket
import struct
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ

import trio

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.noise import Opener, Sealer, sealed_size
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer, Channel
from peertunnel.transport.reactor import READ, WRITE, Reactor


class NoiseChannel(Channel):
    """A Noise session on a non-blocking TCP socket.

    Args:
        sock: connected socket; belongs to the channel from now on.
        reactor: watches the socket.
        sealer: the sending half of the session.
        opener: the receiving half of the session.
        early: plaintext that the handshake had read ahead.
    """

    def __init__(
        self, sock: socket.socket, reactor: Reactor, sealer: Sealer, opener: Opener, early: bytes
    ) -> None:
        self.is_blocked = False
        self._sock = sock
        self._registration = reactor.register(sock, self)
        self._sealer = sealer
        self._opener = opener
        self._early = early
        self._partial = b""  # the part of a record that has arrived
        self._output: memoryview | None = None  # sealed bytes that the socket has not taken
        self._start = self._end = 0
        self._finishing = False
        self._unacknowledged = 0
        self._ended = trio.Event()
        self._failure: Exception | None = None

    async def run(self, received: Callable[[memoryview], None], drained: Callable[[], None]) -> None:
        self._received, self._drained = received, drained
        if self._early:
            received(memoryview(self._early))
            self._early = b""
        if not self._ended.is_set():
            self._registration.add(READ)
            try:
                await self._ended.wait()
            finally:
                self._stop(None)
        if self._failure is not None:
            raise self._failure

    def on_readable(self) -> None:
        """Read once and hand over all complete records."""
        start = len(self._partial)
        into = buffers.received
        try:
            size = self._sock.recv_into(into[start:])
        except BlockingIOError:
            return
        except OSError as error:
            self._stop(error)
            return
        if not size:
            self._stop(None)
            return
        into[:start] = self._partial
        size += start
        try:
            consumed, filled = self._opener.open(into[:size], buffers.plaintext)
            self._partial = bytes(into[consumed:size])
            if filled:
                self._received(buffers.plaintext[:filled])
        except RemoteProtocolError as error:
            self._stop(error)

    def send(self, *batch: Buffer) -> None:
        size = end = 0
        for part in batch:
            size += sealed_size(len(part))
        output = buffers.take_output(size)
        for part in batch:
            end = self._sealer.seal(memoryview(part), output, end)
        self._output, self._start, self._end = output, 0, end
        self._flush()

    def _flush(self) -> None:
        """Send what is sealed, as far as the socket takes it."""
        output = self._output
        if output is None:
            return
        try:
            self._start += self._sock.send(output[self._start : self._end])
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

    def progressed(self) -> bool:
        before = self._unacknowledged
        try:
            (self._unacknowledged,) = struct.unpack("i", ioctl(self._sock, TIOCOUTQ, b"\0" * 4))
        except (OSError, ValueError):
            return False  # closed, or a system that does not count
        return 0 < self._unacknowledged < before

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
        self._stop(ConnectionAbortedError("the connection was closed"))
        self._sock.close()
