"""A Noise session on a socket."""

import socket

from peertunnel.protocols.noise import Opener, Sealer, sealed_size
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.wire import SocketChannel


class NoiseChannel(SocketChannel):
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
        super().__init__(sock, reactor, early)
        self._sealer = sealer
        self._opener = opener

    def open(self, kept: int, size: int) -> None:
        into = buffers.received[: kept + size]
        consumed, filled = self._opener.open(into, buffers.plaintext)
        self.kept = bytes(into[consumed:]) if consumed < len(into) else b""
        if filled:
            self._received(buffers.plaintext[:filled])

    def seal(self, batch: tuple[Buffer, ...]) -> tuple[memoryview, int]:
        size = end = 0
        for part in batch:
            size += sealed_size(len(part))
        output = buffers.take_output(size)
        for part in batch:
            end = self._sealer.seal(memoryview(part), output, end)
        return output, end
