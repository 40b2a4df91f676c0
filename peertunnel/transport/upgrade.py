"""From a connected socket to a multiplexed connection: security first, then yamux.

Only Noise and TLS are ever offered, Noise first. Where its handshake has named yamux, nothing is left to negotiate.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel import sockets
from peertunnel.identity import Identity
from peertunnel.transport import noise_security, tls_security
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.negotiation import propose, respond
from peertunnel.transport.noise_security import Noise, NoiseSession
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.tls_security import Tls, TlsSession
from peertunnel.transport.way import DIRECT, Way
from peertunnel.transport.yamux import YamuxConnection

HANDSHAKE_TIMEOUT = 10.0  # seconds for security and multiplexer together; as in go-libp2p's accept timeout
YAMUX = "/yamux/1.0.0"


class UpgradeError(Exception):
    """A connection could not be secured: the peer is gone, speaks something else, or is not who it should be."""


class Upgrader:
    """Secures and multiplexes sockets.

    Args:
        identity: who we are.
        reactor: watches the sockets of the data path.
        router: serves the streams that peers open.
        muxers: the multiplexers to name in the handshake; it is yamux in the end.
    """

    def __init__(
        self, identity: Identity, reactor: Reactor, router: Router, muxers: Sequence[str] = (YAMUX,)
    ) -> None:
        self._securities: dict[str, Noise | Tls] = {
            noise_security.PROTOCOL: Noise(identity, tuple(muxers)),
            tls_security.PROTOCOL: Tls(identity),
        }
        self._reactor = reactor
        self._router = router

    async def upgrade(
        self,
        sock: socket.socket,
        peer_id: ID | None,
        *,
        is_client: bool,
        way: Way = DIRECT,
        address: Multiaddr | None = None,
    ) -> MuxedConnection:
        """Secure a connected, non-blocking socket and multiplex it; the socket is closed if that fails.

        Args:
            peer_id: who must be at the other end, None for anybody.
            is_client: whether ours is the client's side of the handshakes; who dialled has it, but for punched holes.
            way: how the socket reaches the peer.
            address: the peer's multiaddr, where the socket does not know it: behind a relay.

        Raises:
            UpgradeError: no agreement in time, or the wrong peer.
        """
        with ExitStack() as undo:
            # Closed in order, a dial would keep its port from the next one; who came may still read our answer.
            undo.callback(sockets.abort if is_client or way.kind == "punched" else sockets.close, sock)
            try:
                raw = RawSocket(sock, is_client, way, address)
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    session = await self._secure(raw, None if peer_id is None else str(peer_id))
                channel = session.channel(self._reactor)
            except trio.TooSlowError:
                raise UpgradeError("the handshake took too long") from None
            except Exception as error:  # the seam: hostile bytes surface in the library as any error
                raise UpgradeError(_reason(error)) from error
            undo.pop_all()
        return YamuxConnection(raw, ID.from_base58(session.peer_id), channel, self._reactor, self._router)

    async def _secure(self, raw: RawSocket, peer_id: str | None) -> NoiseSession | TlsSession:
        """Return a session with the right peer in which yamux may begin."""
        agree = propose if raw.is_initiator else respond
        # The ACK that connects the peer of a hole may have got lost; data is sent again until it arrives, and serves as one.
        speaks_first = raw.way.kind == "punched" and not raw.is_initiator
        agree_first = partial(respond, speaks_first=True) if speaks_first else agree
        protocol = await agree_first(raw, list(self._securities))
        session = await self._securities[protocol].secure(raw, peer_id)
        if session.muxer is None:
            await agree(session, [YAMUX])
        return session


def _reason(error: BaseException) -> str:
    """Return what went wrong at the bottom, in the library's words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
