"""A TLS 1.3 session on a socket.

The library reads and writes its sessions from two tasks at once, and under load in both directions that breaks them;
here one call at a time does either.
"""

import socket
import ssl
from collections.abc import Callable

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport import buffers
from peertunnel.transport.channel import Buffer
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.wire import SocketChannel

# Bytes that may come without data, beyond a 16th of all, and that may be answered by the session itself while the peer
# reads nothing: a change of keys takes 27 bytes, and the processor as long as 20 KiB of data do.
MAX_BARREN = 64 * 1024
_PIECE = 64 * 1024  # bytes between two looks at that
_OVERHEAD = 22  # bytes of a record beside its data: header, type and tag


def _read_into(session: ssl.SSLObject, view: memoryview) -> int:
    """Read into a buffer: the type hints know only the form that returns bytes."""
    read: Callable[[int, memoryview], int] = session.read  # type: ignore[assignment]
    return read(len(view), view)


class TlsChannel(SocketChannel):
    """A TLS session on a non-blocking TCP socket.

    Args:
        sock: connected socket; belongs to the channel from now on.
        reactor: watches the socket.
        session: the session, past its handshake.
        incoming: where the session reads what came.
        outgoing: where it writes what is to be sent.
        early: plaintext that the handshake had read ahead.
    """

    def __init__(
        self,
        sock: socket.socket,
        reactor: Reactor,
        session: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        early: bytes,
    ) -> None:
        super().__init__(sock, reactor, early)
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._barren = 0  # bytes that came and held no data

    def open(self, kept: int, size: int) -> None:
        # Nothing is kept: the session keeps parts of records itself.
        filled = 0
        for start in range(0, size or 1, _PIECE):  # once at least: the handshake may have left something
            piece = buffers.received[start : min(start + _PIECE, size)]
            self._incoming.write(piece)
            self._barren = max(0, self._barren + len(piece) - len(piece) // 16)
            filled = self._read(filled)
            if max(self._barren, self._outgoing.pending) > MAX_BARREN:
                raise RemoteProtocolError("TLS: hardly anything but changes of keys")
        if filled:
            self._received(buffers.plaintext[:filled])
        if self._outgoing.pending and not self.is_blocked:
            self.send()  # the session answers by itself, to a change of keys

    def _read(self, filled: int) -> int:
        """Fill the plaintext buffer behind so many bytes; return how many it holds."""
        plaintext = buffers.plaintext
        try:
            while True:
                if filled == len(plaintext):
                    self._received(plaintext)
                    filled = 0
                size = _read_into(self._session, plaintext[filled:])
                if not size:  # close_notify
                    self._stop(None)
                    break
                filled += size
                self._barren -= size + _OVERHEAD
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise RemoteProtocolError(f"TLS: {error.reason or error}") from None
        return filled

    def seal(self, batch: tuple[Buffer, ...]) -> tuple[memoryview, int]:
        for part in batch:
            rest = memoryview(part)
            while rest:
                rest = rest[self._session.write(rest) :]
        output = memoryview(self._outgoing.read())
        return output, len(output)
