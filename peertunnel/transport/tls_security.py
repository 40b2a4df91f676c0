"""Securing a socket by TLS 1.3, for peers that speak no Noise: the handshake is the library's.

The library is loaded when the first of them comes, which most nodes never see. It would look at the peer's certificate
when ours has been sent: whoever wanted to know who calls had only to refuse Noise. And it would take a key of any size: one
of 50 KB in a certificate is 16 seconds of work. So we look first.
"""

import ssl
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from peertunnel.protocols.certificate import peer_of
from peertunnel.transport.channel import Channel
from peertunnel.transport.noise_security import WrongPeer
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.tls import TlsChannel

if TYPE_CHECKING:
    from libp2p.security.tls.transport import TLSTransport

    from peertunnel.identity import Identity

PROTOCOL = "/tls/1.0.0"
# Who must be at the other end of the socket that the current task secures; None for anybody.
_wanted: ContextVar[str | None] = ContextVar("_wanted")


class _Session(ssl.SSLObject):
    """A session that ends where the wrong peer is at the other end: before a caller sends anything that tells who it is."""

    def do_handshake(self) -> None:
        super().do_handshake()
        peer_id = peer_of(self.getpeercert(True) or b"", datetime.now(UTC))
        if _wanted.get() not in (None, peer_id):
            raise WrongPeer(f"the peer is {peer_id}")


class Tls:
    """Does handshakes. identity: who we are."""

    def __init__(self, identity: "Identity") -> None:
        self._identity = identity
        self._library: TLSTransport | None = None

    async def secure(self, raw: RawSocket, peer_id: str | None) -> "TlsSession":
        """Secure a socket; see `Noise.secure`. The library raises whatever it likes."""
        from libp2p.peer.id import ID

        if self._library is None:
            self._library = _load(self._identity)
        conn: Any = raw  # the library asks for no more of it than it has
        _wanted.set(peer_id)
        if raw.is_initiator:
            assert peer_id is not None, "who calls knows whom"
            return TlsSession(raw, await self._library.secure_outbound(conn, ID.from_base58(peer_id)))
        return TlsSession(raw, await self._library.secure_inbound(conn))


def _load(identity: "Identity") -> "TLSTransport":
    from libp2p.security.tls.transport import TLSTransport

    class Transport(TLSTransport):
        def create_ssl_context(self, server_side: bool = False) -> ssl.SSLContext:
            context = super().create_ssl_context(server_side)
            context.sslobject_class = _Session
            return context

    return Transport(identity.key_pair)


class TlsSession:
    """A secured socket, for as long as the multiplexer is being settled; `conn` is the library's.

    Attributes:
        peer_id: the peer, as authenticated.
        muxer: None, since it has yet to be negotiated.
    """

    def __init__(self, raw: RawSocket, conn: Any) -> None:
        self.peer_id = str(conn.get_remote_peer())
        self.muxer: str | None = None
        self._raw = raw
        self._conn = conn

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, b"" at the end."""
        data: bytes = await self._conn.read(n)
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._conn.write(data)

    def channel(self, reactor: Reactor) -> Channel:
        """Give the session to the data path."""
        tls = self._conn.conn.stream_writer
        early = self._conn._drain(None) + bytes(tls._read_buffer)
        return TlsChannel(self._raw.sock, reactor, tls._ssl_socket, tls._in_bio, tls._out_bio, early)
