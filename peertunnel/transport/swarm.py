"""The library's swarm with our dialer, our listeners' connections, and limits for what peers open from one place."""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import trio
from libp2p.abc import INetConn
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, PeerStoreError
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from peertunnel.budget import place_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dialer import DialError, Transport, dial
from peertunnel.transport.tcp import SockAddress, Tcp
from peertunnel.transport.upgrade import UpgradeError, upgrade
from peertunnel.transport.way import DIRECT, PUNCHED, Way

DIAL_TIMEOUT = 15.0  # seconds for the library's own dials; go-libp2p's default
MAX_CONNECTIONS = 2048  # connections in all; each costs some 60 KiB and two descriptors at the most
MAX_PER_PLACE = MAX_CONNECTIONS // 4  # of them opened from one address: one machine can't have them all


class _NoAutoConnector(AutoConnector):
    """Dials nobody: the library's would keep dialling whoever the peerstore knows, up to the connection limit."""

    async def maybe_connect(self) -> None:
        """Do nothing."""


class Network(Swarm):
    """The swarm of a node; `create_network` makes it.

    Attributes:
        tcp: dials over TCP.
        transports: all ways to dial.
        watchers: called with each connection that stands, whoever opened it.
    """

    tcp: Tcp
    transports: list[Transport]
    watchers: list[Callable[[MuxedConnection], None]]
    _crossing: dict[tuple[str, int], tuple[ID, bool]]
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
        connection = await dial(peer_id, list(addresses), self.transports, within)
        is_taken = False
        try:
            await self.take_in(connection, "outbound")
            is_taken = True
        except UpgradeError as error:
            raise DialError([(str(peer_id), str(error))]) from error
        finally:
            if not is_taken:
                with trio.CancelScope(shield=True):
                    await connection.close()
        return connection

    @contextmanager
    def crossing(self, peer_id: ID, targets: Iterable[SockAddress], *, is_client: bool) -> Iterator[None]:
        """Expect a peer that punches to come from any of these addresses, and keep to our role should it be first.

        Args:
            peer_id: who is to come.
            targets: where the peer's NAT has it; port 0 stands for any, over QUIC.
            is_client: whether ours is the client's side of the handshakes.
        """
        places = {(target[0], target[1]): (peer_id, is_client) for target in targets}
        self._crossing |= places
        try:
            yield
        finally:
            for place, expected in places.items():
                if self._crossing.get(place) is expected:
                    del self._crossing[place]

    async def accept(self, sock: socket.socket) -> None:
        """Secure a connection that a peer has opened, and serve it; raises UpgradeError."""
        try:
            name = sock.getpeername()[:2]
        except OSError as error:
            sock.close()
            raise UpgradeError("the peer is gone") from error
        neighbours = self._from(place_of(name))
        if len(neighbours) >= MAX_PER_PLACE:
            sock.close()
            raise UpgradeError("too many connections from where the peer is")
        peer_id, is_client = self._crossing.get(name, (None, False))
        way = DIRECT if peer_id is None else PUNCHED
        connection = await upgrade(self.upgrader, sock, peer_id, is_client=is_client, way=way)
        neighbours.add(connection)
        await self.take_in(connection, "inbound")

    async def welcome(self, connection: MuxedConnection) -> None:
        """Serve a connection that a peer has opened and that is secure, or close it."""
        neighbours = self._from(place_of(connection.get_remote_address()))
        if len(neighbours) >= MAX_PER_PLACE:
            await connection.close()
            return
        neighbours.add(connection)
        if (remote := connection.get_remote_address()) is not None:
            expected = (self._crossing.get((remote[0], port), (None, False))[0] for port in (remote[1], 0))
            if connection.peer_id in expected:
                connection.way = PUNCHED
        try:
            await self.take_in(connection, "inbound")
        except UpgradeError:
            pass  # it is over already; strangers come and go

    async def take_in(self, connection: MuxedConnection, direction: str) -> None:
        """Serve a connection from now on; raises UpgradeError if it is over already, or one too many."""
        try:
            await self.add_conn(connection, direction)
        except SwarmException as error:
            raise UpgradeError(str(error)) from error
        for watcher in self.watchers:
            watcher(connection)

    async def secure(
        self, sock: socket.socket, peer_id: ID, way: Way, address: Multiaddr, *, is_client: bool
    ) -> MuxedConnection:
        """Secure a socket that leads to a peer some other way, see `upgrade.upgrade`; raises UpgradeError."""
        return await upgrade(self.upgrader, sock, peer_id, is_client=is_client, way=way, address=address)

    def _from(self, place: str) -> set[MuxedConnection]:
        """Give the living connections that peers have opened from a place; the dead ones are forgotten."""
        if len(self._inbound) > MAX_CONNECTIONS:
            alive = {place: {c for c in found if not c.is_closed} for place, found in self._inbound.items()}
            self._inbound = {place: found for place, found in alive.items() if found}
        neighbours = self._inbound.setdefault(place, set())
        neighbours -= {connection for connection in neighbours if connection.is_closed}
        return neighbours


def create_network(own_id: ID, peerstore: PeerStore, upgrader: TransportUpgrader) -> Network:
    """Make a swarm that dials nobody of its own accord.

    Args:
        own_id: who we are.
        peerstore: holds our key.
        upgrader: of `upgrade.create_upgrader`.
    """
    limits = ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        max_connections_per_peer=MAX_CONNECTIONS,
        min_connections=0,
        low_watermark=MAX_CONNECTIONS,
        high_watermark=MAX_CONNECTIONS,
    )
    network = Network(own_id, peerstore, upgrader, [], connection_config=limits)

    async def secure(sock: socket.socket, peer_id: ID) -> MuxedConnection:
        return await upgrade(upgrader, sock, peer_id, is_client=True)

    network.tcp = Tcp(secure)
    network.transports = [network.tcp]
    network.watchers = []
    network._crossing = {}
    network._inbound = {}
    network.auto_connector = _NoAutoConnector(network)
    return network
