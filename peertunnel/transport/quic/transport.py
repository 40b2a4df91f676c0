"""QUIC to peers: which addresses, from which socket, and with which certificate."""

import errno
import ipaddress
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.boundary import contained
from peertunnel.protocols.certificate import issue
from peertunnel.transport.addresses import is_loopback
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.listener import ListenError
from peertunnel.transport.quic import _engine, is_quic
from peertunnel.transport.quic.connection import QuicConnection
from peertunnel.transport.quic.endpoint import Accept, Endpoint
from peertunnel.transport.quic.room import SEND_WINDOW
from peertunnel.transport.quic.udp import UdpSocket
from peertunnel.transport.race import Attempt, alternate, failing
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.tcp import SockAddress, family_of, resolve
from peertunnel.transport.way import Way

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from peertunnel.identity import Identity

STREAMS = 1024  # that a peer may have open with us; as over yamux
# Bytes that a peer may send ahead of a slow reader, to other machines and to this one. A stream's is fixed from its
# beginning: 80 MB/s at 100 ms; go-libp2p and rust-libp2p have 10 MB. Whoever doesn't read fills it, and the connection's
# is for all streams: 16 and 64 stalled ones stop no other, where theirs is used up by 2.
STREAM_WINDOW = (8 * 1024 * 1024, 2 * 1024 * 1024)
CONNECTION_WINDOW = 128 * 1024 * 1024
IDLE = 10.0  # seconds of silence before a peer counts as lost; with one KEEPALIVE before it, 14 at most
KEEPALIVE = 4.0  # seconds; rust-libp2p gives up after 10
DATAGRAM = 1452  # bytes; what an Ethernet frame has room for behind IPv6 and UDP
LOOPBACK_DATAGRAM = 8952  # bytes, to this machine: fewer and larger ones; measured, 1.7 times as fast
# To other machines: at 50 ms, BBR carries 30 times as much as cubic where 1 % of the datagrams are lost, as much where
# none are, and leaves a rival's cubic (go-libp2p's) a fifth to a third of a line that they share. Here nothing is far.
CONGESTION = ("bbr", "cubic")
HEAD_START = 0.1  # seconds that TCP gets on a LAN, where it is faster
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_RESET_INFO = b"peertunnel/v1/quic reset/"
_ANYWHERE: dict[int, SockAddress] = {socket.AF_INET: ("0.0.0.0", 0), socket.AF_INET6: ("::", 0, 0, 0)}


class Quic:
    """Dials and listens over QUIC; `run` runs it.

    Args:
        identity: who we are.
        reactor: watches the sockets.
        router: serves the streams that peers open.
        accept: takes a connection that a peer has opened; it must not wait.
    """

    def __init__(
        self,
        identity: "Identity",
        reactor: Reactor,
        router: Router,
        accept: Accept,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        sign = Ed25519PrivateKey.from_private_bytes(identity.seed).sign
        self._certificate = issue(
            key, identity.peer_id, sign, random.SystemRandom().getrandbits(120), datetime.now(UTC)
        )
        self._key = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self._seed = identity.seed
        self._reactor = reactor
        self._router = router
        self._accept = accept
        self._listening: list[Endpoint] = []
        self._dialling: dict[int, Endpoint] = {}
        self._single: set[Endpoint] = set()  # with a connection each
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serve all sockets until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for endpoint in self._listening:
                self._nursery.start_soon(endpoint.run)
            task_status.started()
            await trio.sleep_forever()

    def listen(self, addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
        """Bind addresses of either transport, before `run`, and return them; those with port 0 share one.

        A machine without IPv6 listens on IPv4 alone.

        Raises:
            ListenError: an address is taken, or is not this machine's.
        """
        bound: list[Multiaddr] = []
        shared = 0
        for address in addresses:
            family = socket.AF_INET6 if "ip6" in address else socket.AF_INET
            host = str(address.value_for_protocol("ip6" if family == socket.AF_INET6 else "ip4"))
            wanted = int(str(address.value_for_protocol("udp" if is_quic(address) else "tcp")))
            try:
                bound.append(self._listen(family, host, wanted or shared))
            except OSError as error:
                if error.errno in _NO_FAMILY and family == socket.AF_INET6 and bound:
                    continue
                if error.errno != errno.EADDRINUSE or wanted:
                    raise ListenError(f"{address}: {error.strerror or error}") from error
                bound.append(self._listen(family, host, 0))
            if not wanted:
                shared = int(str(bound[-1].value_for_protocol("udp")))
        return bound

    def listen_beside(self, names: Iterable[SockAddress]) -> list[Multiaddr]:
        """Bind the addresses that TCP has, on the same ports where they are free, and return them."""
        bound: list[Multiaddr] = []
        for host, port, *_ in names:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                bound.append(self._listen(family, host, port))
            except OSError:
                bound.append(self._listen(family, host, 0))
        return bound

    def _listen(self, family: int, host: str, port: int) -> Multiaddr:
        udp = UdpSocket((host, port, 0, 0) if family == socket.AF_INET6 else (host, port))
        self._listening.append(self._endpoint(udp, is_server=True))
        return udp.address

    def stop_accepting(self) -> None:
        """Refuse new connections from now on."""
        for endpoint in self._listening:
            endpoint.stop_accepting()

    def close(self) -> None:
        """Close the sockets of a transport that never ran."""
        for endpoint in self._listening:
            endpoint.close()

    def _endpoint(self, udp: UdpSocket, *, is_server: bool) -> Endpoint:
        # Sockets with one key between them would let strangers end a connection of one by asking the other.
        reset_key = HKDF(SHA256(), 32, salt=None, info=_RESET_INFO + repr(udp.name).encode()).derive(
            self._seed
        )
        engine = _engine.Endpoint(
            self._certificate,
            self._key,
            os.urandom(32),
            reset_key,
            is_server,
            STREAMS,
            (
                (STREAM_WINDOW[0], CONNECTION_WINDOW, SEND_WINDOW),
                (STREAM_WINDOW[1], CONNECTION_WINDOW, SEND_WINDOW),
            ),
            (IDLE, KEEPALIVE),
            (DATAGRAM, LOOPBACK_DATAGRAM),
            CONGESTION,
        )
        return Endpoint(udp, engine, self._reactor, self._router, self._accept)

    def can_dial(self, address: Multiaddr) -> bool:
        """Return whether an address is one for us."""
        return is_quic(address)

    async def plan(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> list[Attempt]:
        """Return an attempt for each place that the addresses lead to, IPv6 and IPv4 in turn."""
        found: list[tuple[int, Attempt]] = []
        for address in addresses:
            try:
                targets = await resolve(address, "udp", socket.SOCK_DGRAM)
            except OSError as error:
                found.append((socket.AF_INET, Attempt(address, failing(error))))
                continue
            found += [
                (
                    family_of(target),
                    Attempt(
                        address, self._attempt(peer_id, target), 0.0 if _is_far(target[0]) else HEAD_START
                    ),
                )
                for target in targets
            ]
        return alternate(found)

    def _attempt(self, peer_id: ID, target: SockAddress) -> Callable[[], Awaitable[MuxedConnection]]:
        async def run() -> MuxedConnection:
            return await self.dial(peer_id, target)

        return run

    async def dial(self, peer_id: ID, target: SockAddress) -> QuicConnection:
        """Connect to a peer, from the port that we listen on if it leads there.

        Raises:
            OSError: there is no socket to dial from.
            UpgradeError: nobody answered, or it was somebody else.
        """
        return await self.endpoint_for(target).dial(peer_id, target)

    def endpoint_for(self, target: SockAddress) -> Endpoint:
        """Return the endpoint that datagrams to an address leave from; raises OSError if there can be none."""
        for endpoint in self._listening:
            if family_of(endpoint.name) == family_of(target) and _leads(endpoint.name[0], target[0]):
                return endpoint
        family = family_of(target)
        if family not in self._dialling:
            assert self._nursery is not None
            endpoint = self._endpoint(UdpSocket(_ANYWHERE[family]), is_server=False)
            self._dialling[family] = endpoint
            self._nursery.start_soon(self._serve_dials, family, endpoint)
        return self._dialling[family]

    async def _serve_dials(self, family: int, endpoint: Endpoint) -> None:
        try:
            await contained(endpoint.run)
        finally:
            self._dialling.pop(family, None)  # where it has failed, the next dial has another one

    async def dial_from(self, udp: UdpSocket, peer_id: ID, target: SockAddress, way: Way) -> QuicConnection:
        """Connect to a peer from a socket, which has no other connection and is closed with this one.

        Raises:
            UpgradeError: nobody answered, or it was somebody else.
        """
        assert self._nursery is not None
        endpoint = self._endpoint(udp, is_server=False)
        scope: trio.CancelScope = await self._nursery.start(self._serve, endpoint)
        try:
            connection = await endpoint.dial(peer_id, target, way)
        except BaseException:
            scope.cancel()
            raise
        self._nursery.start_soon(_follow, connection, scope)
        return connection

    async def _serve(
        self, endpoint: Endpoint, task_status: "TaskStatus[trio.CancelScope]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._single.add(endpoint)
        try:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await contained(endpoint.run)
        finally:
            self._single.discard(endpoint)

    def rebound(self) -> None:
        """Tell peers where we are now: the network has changed."""
        for endpoint in (*self._listening, *self._dialling.values(), *self._single):
            endpoint.rebound()


async def _follow(connection: QuicConnection, scope: trio.CancelScope) -> None:
    """Close what serves a connection when it has ended."""
    await connection.event_closed.wait()
    scope.cancel()


def _leads(bound: str, target: str) -> bool:
    """Return whether a socket that is bound to one IP address reaches another."""
    return ipaddress.ip_address(bound).is_unspecified or is_loopback(bound) == is_loopback(target)


def _is_far(target: str) -> bool:
    """Return whether an IP address is on the internet."""
    return ipaddress.ip_address(target.partition("%")[0]).is_global
