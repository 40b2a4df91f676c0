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


class NoiseChannel(Channel):
    """A Noise session on a non-blocking TCP socket.

    Args:
        sock: connected socket; belongs to the channel from now on.
        sealer: the sending half of the session.
        opener: the receiving half of the session.
        early: plaintext that the handshake had read ahead.
    """

    def __init__(self, sock: socket.socket, sealer: Sealer, opener: Opener, early: bytes) -> None:
        self.is_blocked = False
        self._sock = sock
        self._sealer = sealer
        self._opener = opener
        self._early = early
        self._partial = b""  # the part of a record that has arrived
        self._output: memoryview | None = None  # sealed bytes that the socket has not taken
        self._start = self._end = 0
        self._blocked = trio.Event()
        self._finishing = False
        self._unacknowledged = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self, received: Callable[[memoryview], None], drained: Callable[[], None]) -> None:
        if self._early:
            received(memoryview(self._early))
            self._early = b""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, drained)
            try:
                while await self._read(received):
                    pass
            except trio.ClosedResourceError:
                failure = ConnectionAbortedError("the connection was closed")
            except (OSError, RemoteProtocolError) as error:  # not to leave as a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read(self, received: Callable[[memoryview], None]) -> bool:
        """Read once and hand over all complete records; return False at the end."""
        await trio.lowlevel.wait_readable(self._sock.fileno())
        start = len(self._partial)
        into = buffers.received
        try:
            size = self._sock.recv_into(into[start:])
        except BlockingIOError:
            return True
        if not size:
            return False
        into[:start] = self._partial
        size += start
        consumed, filled = self._opener.open(into[:size], buffers.plaintext)
        self._partial = bytes(into[consumed:size])
        if filled:
            received(buffers.plaintext[:filled])
        return True

    def send(self, *batch: Buffer) -> None:
        output = buffers.take_output(sum(sealed_size(len(part)) for part in batch))
        end = 0
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
        self.is_blocked = self._start < self._end
        if self.is_blocked:
            self._blocked.set()
        else:
            self._output = None
            buffers.give_output(output)
            if self._finishing:
                self._shut_down()

    async def _write(self, drained: Callable[[], None]) -> None:
        """Send on whenever the socket takes more."""
        while True:
            await self._blocked.wait()
            while self.is_blocked:
                try:
                    await trio.lowlevel.wait_writable(self._sock.fileno())
                except (trio.ClosedResourceError, OSError):
                    return
                self._flush()
                if not self.is_blocked:
                    drained()
            self._blocked = trio.Event()

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
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock.fileno())
            self._sock.close()
