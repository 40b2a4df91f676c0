"""From a connected socket to a multiplexed connection: security first, then yamux.

The library negotiates and does the handshake. Only Noise and TLS are ever offered, Noise first: its own defaults
would accept plaintext. Behind the handshake the session is taken over: its keys, its socket and the multiplexer are
ours from there on.
"""

import socket
from contextlib import ExitStack
from typing import Any

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.security.tls.io import TLSReadWriter
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux as LibraryYamux
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from peertunnel.protocols.noise import Opener, Sealer
from peertunnel.transport.channel import Channel
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.noise import NoiseChannel
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.tls import TlsChannel
from peertunnel.transport.way import DIRECT, Way
from peertunnel.transport.yamux import YamuxConnection

HANDSHAKE_TIMEOUT = 10.0  # seconds for security and multiplexer together; as in go-libp2p's accept timeout


class UpgradeError(Exception):
    """A connection could not be secured: the peer is gone, speaks something else, or is not who it should be."""


class Muxer(MuxerMultistream):
    """Offers yamux only, and makes our connection of it.

    The library's own class is bound by name to the library's own yamux.
    """

    def __init__(self, reactor: Reactor, router: Router) -> None:
        super().__init__({TProtocol(YAMUX): LibraryYamux})
        self._reactor = reactor
        self._router = router

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Agree on yamux and return the connection, not yet started."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        raw, channel = take_over(conn, self._reactor)
        connection = YamuxConnection(conn, raw, peer_id, channel, self._reactor, self._router)
        return self._annotate_connection(connection, conn, protocol)


def take_over(conn: ISecureConn, reactor: Reactor) -> tuple[RawSocket, Channel]:
    """Return the socket under a secured connection of ours, and a channel that carries its session on."""
    if not isinstance(conn, SecureSession):
        raise UpgradeError("this connection is of no kind that we know")
    if isinstance(conn.conn, NoiseTransportReadWriter):
        raw: Any = conn.conn.read_writer.read_write_closer
        noise = conn.conn.noise_state.noise_protocol
        sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        sealer, opener = Sealer(bytes(sending.k), sending.n), Opener(bytes(receiving.k), receiving.n)
        return raw, NoiseChannel(raw.sock, reactor, sealer, opener, conn._drain(None))
    if isinstance(conn.conn, TLSReadWriter):
        tls = conn.conn.stream_writer
        raw = tls.raw_connection
        early = conn._drain(None) + bytes(tls._read_buffer)
        return raw, TlsChannel(raw.sock, reactor, tls._ssl_socket, tls._in_bio, tls._out_bio, early)
    raise UpgradeError("this connection is of no kind that we know")


def create_upgrader(key_pair: KeyPair, reactor: Reactor, router: Router) -> TransportUpgrader:
    """Return the library's upgrader with our choice of security and our multiplexer.

    Args:
        key_pair: the node's identity.
        reactor: watches the sockets of the data path.
        router: serves the streams that peers open.
    """
    upgrader = TransportUpgrader(
        {
            NOISE: NoiseTransport(key_pair, noise_privkey=create_x25519_key_pair().private_key),
            TProtocol(TLS): TLSTransport(key_pair),
        },
        {},
    )
    upgrader.muxer_multistream = Muxer(reactor, router)
    return upgrader


async def upgrade(
    upgrader: TransportUpgrader,
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
        undo.callback(sock.close)
        try:
            raw = RawSocket(sock, is_client, way, address)
            undo.callback(raw.close_now)
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                secured = await upgrader.upgrade_security(raw, is_client, peer_id)
                found = secured.get_remote_peer()
                if peer_id not in (None, found):
                    raise UpgradeError(f"the peer is {found}")
                connection = await upgrader.upgrade_connection(secured, found)
        except trio.TooSlowError:
            raise UpgradeError("the handshake took too long") from None
        except Exception as error:  # the seam: hostile bytes surface as any error
            raise UpgradeError(_reason(error)) from error
        undo.pop_all()
        assert isinstance(connection, MuxedConnection)
        return connection


def _reason(error: BaseException) -> str:
    """Return what went wrong at the bottom, in the library's words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
