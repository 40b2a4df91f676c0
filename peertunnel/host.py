"""The libp2p host: the library's, with our connections, listeners and dialer plugged in.

From the library come identity, identify, ping, the peerstore and every other protocol; it sees ordinary connections
and streams. Its own accept loop and dialer are passed by: the first refuses everybody after 250 connections, the
second tries one address per transport and remembers failures for a minute.
"""

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify import identify
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, PeerStoreError
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from peertunnel import __version__
from peertunnel.budget import place_of
from peertunnel.errors import NotFound, PeerTunnelError
from peertunnel.peers import Answer, Identified
from peertunnel.transport.addresses import dialable
from peertunnel.transport.dialer import DialError, dial, is_dialable
from peertunnel.transport.identify import identified
from peertunnel.transport.listener import Listener, ListenError, bind_tcp
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.requests import Answering, request, tell
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.upgrade import UpgradeError, create_upgrader, upgrade
from peertunnel.transport.visits import Visits
from peertunnel.transport.yamux import MuxedConnection

if TYPE_CHECKING:
    from peertunnel.identity import Identity

AGENT = f"peertunnel/{__version__}"
DIAL_TIMEOUT = 15.0  # seconds for the library's own dials; go-libp2p's default
MAX_CONNECTIONS = 2048  # connections in all; each costs some 60 KiB and two descriptors at the most
MAX_PER_PLACE = MAX_CONNECTIONS // 4  # of them opened from one address: one machine can't have them all
_log = logging.getLogger(__name__)

identify.AGENT_VERSION = AGENT


class HostError(PeerTunnelError):
    """The node cannot listen for peers."""


class _NoAutoConnector(AutoConnector):
    """Dials nobody: the library's would keep dialling whoever the peerstore knows, up to the connection limit."""

    async def maybe_connect(self) -> None:
        """Do nothing."""


class _Network(Swarm):
    """The library's swarm with our dialer, and a limit for what peers open from one place."""

    _inbound: dict[str, set[MuxedConnection]]

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """Connect to a peer at the addresses that the peerstore has, for the library's own protocols."""
        if not (connections := self.get_connections(peer_id)):
            try:
                connection = await self.connect(peer_id, self.peerstore.addrs(peer_id), DIAL_TIMEOUT)
            except (DialError, PeerStoreError) as error:
                raise SwarmException(f"cannot reach {peer_id}: {error}") from error
            connections = [found for found in self.get_connections(peer_id) if found.muxed_conn is connection]
        return connections

    async def connect(self, peer_id: ID, addresses: Iterable[Multiaddr], within: float) -> MuxedConnection:
        """Connect to a peer and serve the connection.

        Raises:
            DialError: no address led to the peer in time, or it hung up at once.
        """
        connection = await dial(peer_id, list(addresses), self._upgrade, within)
        try:
            await self.add_conn(connection, "outbound")
        except SwarmException as error:
            raise DialError([(str(peer_id), str(error))]) from error
        return connection

    async def accept(self, sock: socket.socket) -> None:
        """Secure a connection that a peer has opened, and serve it; raises UpgradeError."""
        try:
            neighbours = self._from(place_of(sock.getpeername()[:2]))
        except OSError as error:
            sock.close()
            raise UpgradeError("the peer is gone") from error
        if len(neighbours) >= MAX_PER_PLACE:
            sock.close()
            raise UpgradeError("too many connections from where the peer is")
        connection = await upgrade(self.upgrader, sock, None)
        neighbours.add(connection)
        try:
            await self.add_conn(connection, "inbound")
        except SwarmException as error:
            raise UpgradeError(str(error)) from error

    def _from(self, place: str) -> set[MuxedConnection]:
        """Give the living connections that peers have opened from a place; the dead ones are forgotten."""
        if len(self._inbound) > MAX_CONNECTIONS:
            alive = {place: {c for c in found if not c.is_closed} for place, found in self._inbound.items()}
            self._inbound = {place: found for place, found in alive.items() if found}
        neighbours = self._inbound.setdefault(place, set())
        neighbours -= {connection for connection in neighbours if connection.is_closed}
        return neighbours

    async def _upgrade(self, sock: socket.socket, peer_id: ID) -> MuxedConnection:
        return await upgrade(self.upgrader, sock, peer_id)


class Host:
    """One libp2p node; `open_host` runs it.

    Args:
        identity: who we are.
    """

    def __init__(self, identity: "Identity") -> None:
        self.peer_id = identity.peer_id
        self._id = ID.from_base58(identity.peer_id)
        self.reactor = Reactor()
        self.nursery: trio.Nursery
        self._key = Ed25519PrivateKey.from_private_bytes(identity.seed)
        self._visits = Visits(self)
        self._handlers: dict[str, Callable[[MuxedStream], None]] = {}
        self._listening: list[str] = []
        peerstore = PeerStore()
        peerstore.add_key_pair(self._id, identity.key_pair)
        limits = ConnectionConfig(
            max_connections=MAX_CONNECTIONS,
            max_connections_per_peer=MAX_CONNECTIONS,
            min_connections=0,
            low_watermark=MAX_CONNECTIONS,
            high_watermark=MAX_CONNECTIONS,
        )
        self.network = _Network(
            self._id,
            peerstore,
            create_upgrader(identity.key_pair, self.reactor, self),
            [],
            connection_config=limits,
        )
        self.network._inbound = {}
        self.network.auto_connector = _NoAutoConnector(self.network)
        self.library = BasicHost(self.network, addrs_factory=lambda _: self._announced())
        self.network.set_stream_handler(self._serve_library)

    # -- where we are ---------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now, each ending in /p2p/ and our id."""
        return tuple(f"{address}/p2p/{self.peer_id}" for address in dialable(self._listening))

    def _announced(self) -> list[Multiaddr]:
        return [Multiaddr(address) for address in dialable(self._listening)]

    def listen(self, addresses: Iterable[str]) -> list[Listener]:
        """Bind the addresses; whoever runs the listeners accepts peers.

        Raises:
            HostError: an address is taken, malformed or not this machine's.
        """
        try:
            sockets = bind_tcp([Multiaddr(address) for address in addresses])
        except (ListenError, ValueError) as error:
            raise HostError(
                f"Cannot listen for peers on {error}.", hint="Choose other addresses with --p2p-listen."
            ) from error
        listeners = [Listener(sock, self.network.accept) for sock in sockets]
        for listener in listeners:
            for address in listener.get_addrs():
                self.network.listeners[str(address)] = listener
                self._listening.append(str(address))
        return listeners

    # -- streams --------------------------------------------------------------------------------------------------

    def serve(self, protocol: str, handler: Callable[[MuxedStream], None]) -> None:
        """Hand streams of a protocol to `handler`, which must not wait, as soon as they are negotiated."""
        self._handlers[protocol] = handler
        self.library.multiselect.handlers[TProtocol(protocol)] = None  # identify lists it

    def stop_serving(self, protocol: str) -> None:
        """Refuse new streams of a protocol."""
        self._handlers.pop(protocol, None)
        self.library.multiselect.handlers.pop(TProtocol(protocol), None)

    def speaks(self, protocol: str) -> bool:
        """Return whether a stream of this protocol is welcome now."""
        return TProtocol(protocol) in self.library.multiselect.handlers

    def offered(self) -> list[str]:
        """Return the protocols that a peer may see."""
        return [str(protocol) for protocol in self.library.multiselect.handlers if protocol]

    def route(self, stream: MuxedStream) -> bool:
        """Hand a negotiated stream to its handler; return False for the library's protocols."""
        handler = self._handlers.get(stream.protocol or "")
        if handler is not None:
            handler(stream)
        return handler is not None

    async def _serve_library(self, stream: INetStream) -> None:
        protocol = TProtocol(stream.muxed_stream.protocol or "")  # type: ignore[attr-defined]
        stream.set_protocol(protocol)
        handler = self.library.multiselect.handlers.get(protocol)
        try:
            if handler is not None:
                await handler(stream)
                return
        except Exception as error:  # noqa: BLE001  a task boundary
            _log.debug("a stream of %s failed: %r", protocol, error)
        await stream.reset()

    # -- peers ----------------------------------------------------------------------------------------------------

    async def dial(self, peer_id: str, addresses: Iterable[str], within: float) -> MuxedConnection:
        """Connect to a peer, whether or not we are connected to it already.

        Args:
            peer_id: base58.
            addresses: multiaddrs; those that we cannot dial are passed over.
            within: seconds.

        Raises:
            NotFound: no address led to the peer in time.
        """
        if peer_id == self.peer_id:
            raise NotFound("That peer is this very node.", hint="Give the address that the provider printed.")
        places = [place for address in addresses if is_dialable(place := Multiaddr(address))]
        try:
            return await self.network.connect(ID.from_base58(peer_id), places, within)
        except DialError as error:
            raise NotFound(f"Peer {peer_id} did not answer: {error}.") from error

    def connections(self, peer_id: str) -> list[MuxedConnection]:
        """Return the living connections to a peer, the newest first."""
        found = [conn.muxed_conn for conn in self.network.get_connections(ID.from_base58(peer_id))]
        return [conn for conn in reversed(found) if isinstance(conn, MuxedConnection) and not conn.is_closed]

    def all_connections(self) -> list[MuxedConnection]:
        """Return every living connection."""
        found = [conn.muxed_conn for conn in self.network.get_connections()]
        return [conn for conn in found if isinstance(conn, MuxedConnection) and not conn.is_closed]

    def is_connected(self, peer_id: str) -> bool:
        """Return whether a connection to a peer stands."""
        return bool(self.connections(peer_id))

    # -- questions and answers ------------------------------------------------------------------------------------

    def sign(self, data: bytes) -> bytes:
        """Sign with the key of our peer id (Ed25519, 64 bytes)."""
        return self._key.sign(data)

    def answer(self, protocol: str, answer: Answer, *, limit: int) -> None:
        """Answer requests of a protocol from now on; see `peers.Peers`."""
        self.serve(protocol, Answering(answer, limit, self.nursery).accept)

    def stop_answering(self, protocol: str) -> None:
        """Refuse new requests of a protocol."""
        self.stop_serving(protocol)

    async def request(
        self,
        peer_id: str,
        addresses: Iterable[str],
        protocol: str,
        message: bytes,
        *,
        limit: int,
        within: float,
    ) -> bytes:
        """Send a message to a peer and return its answer; see `peers.Peers`."""
        async with self._visits.to(peer_id, addresses, within) as connection:
            return await request(connection, protocol, message, limit)

    async def tell(
        self, peer_id: str, addresses: Iterable[str], protocol: str, message: bytes, *, within: float
    ) -> None:
        """Send a message that has no answer; see `peers.Peers`."""
        async with self._visits.to(peer_id, addresses, within) as connection:
            await tell(connection, protocol, message)

    async def identify(self, peer_id: str, addresses: Iterable[str], *, within: float) -> Identified:
        """Ask a peer what it is; see `peers.Peers`."""
        async with self._visits.to(peer_id, addresses, within) as connection:
            return await identified(connection)

    async def close(self) -> None:
        """Close all connections, which tells the peers, and stop."""
        async with trio.open_nursery() as nursery:
            for connection in self.network.get_connections():
                nursery.start_soon(connection.muxed_conn.close)
        await self.library.close()


@asynccontextmanager
async def open_host(identity: "Identity", listen: Iterable[str]) -> AsyncIterator[Host]:
    """Run a node.

    Args:
        identity: who we are.
        listen: multiaddrs to listen on, port 0 for any.

    Raises:
        HostError: an address cannot be listened on.
    """
    host = Host(identity)
    listeners = host.listen(listen)
    async with trio.open_nursery() as reactor:
        reactor.start_soon(host.reactor.run)
        try:
            async with background_trio_service(host.network), trio.open_nursery() as nursery:
                host.nursery = nursery
                await host.network.event_background_nursery_created.wait()
                for listener in listeners:
                    nursery.start_soon(listener.run)
                try:
                    yield host
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await host.close()
        finally:
            reactor.cancel_scope.cancel()  # last: what closes above still needs it
