"""The library's swarm with our dialer, our listeners' connections, and limits for what peers open from one place."""

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from operator import itemgetter

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
ROOM = (
    1 / 8
)  # of either number that is kept free for newcomers, as long as there are connections that nobody uses
FIRST_USE = (
    5.0  # seconds in which a new connection need not be used; a peer that wants something asks at once
)


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
    _inbound: dict[str, dict[MuxedConnection, float]]  # by where they come from, and since when

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
        place = place_of(name)
        if not self._has_room(place):
            sock.close()
            raise UpgradeError("too many connections from where the peer is")
        peer_id, is_client = self._crossing.get(name, (None, False))
        way = DIRECT if peer_id is None else PUNCHED
        connection = await upgrade(self.upgrader, sock, peer_id, is_client=is_client, way=way)
        await self._take_from(place, connection)

    async def welcome(self, connection: MuxedConnection) -> None:
        """Serve a connection that a peer has opened and that is secure, or close it."""
        place = place_of(connection.get_remote_address())
        if not self._has_room(place):
            await connection.close()
            return
        if (remote := connection.get_remote_address()) is not None:
            expected = (self._crossing.get((remote[0], port), (None, False))[0] for port in (remote[1], 0))
            if connection.peer_id in expected:
                connection.way = PUNCHED
        try:
            await self._take_from(place, connection)
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

    @asynccontextmanager
    async def newcomers(self, peer_id: str) -> AsyncIterator[trio.MemoryReceiveChannel[MuxedConnection]]:
        """Give the connections to a peer (by its id, base58) as they come to stand."""
        send, receive = trio.open_memory_channel[MuxedConnection](MAX_CONNECTIONS)

        def tell(connection: MuxedConnection) -> None:
            if str(connection.peer_id) == peer_id:
                send.send_nowait(connection)

        self.watchers.append(tell)
        try:
            async with receive:
                yield receive
        finally:
            self.watchers.remove(tell)

    async def secure(
        self, sock: socket.socket, peer_id: ID, way: Way, address: Multiaddr, *, is_client: bool
    ) -> MuxedConnection:
        """Secure a socket that leads to a peer some other way, see `upgrade.upgrade`; raises UpgradeError."""
        return await upgrade(self.upgrader, sock, peer_id, is_client=is_client, way=way, address=address)

    # -- room for those that come -----------------------------------------------------------------------------------

    async def _take_from(self, place: str, connection: MuxedConnection) -> None:
        """Serve a connection that a peer has opened from a place; raises UpgradeError."""
        self._inbound.setdefault(place, {})[connection] = trio.current_time()
        if len(self.get_connections()) >= MAX_CONNECTIONS * (1 - ROOM):
            self._close_idle(self._inbound.values())
        await self.take_in(connection, "inbound")

    def _has_room(self, place: str) -> bool:
        """Return whether another connection may come from a place, once one that nobody uses has made room if need be."""
        if len(self._inbound) > MAX_CONNECTIONS:
            self._inbound = {place: found for place in self._inbound if (found := self._from(place))}
        neighbours = self._from(place)
        if len(neighbours) >= MAX_PER_PLACE * (1 - ROOM):
            self._close_idle([neighbours])
        return len(neighbours) < MAX_PER_PLACE

    def _from(self, place: str) -> dict[MuxedConnection, float]:
        """Give the living connections that peers have opened from a place; the dead ones are forgotten."""
        neighbours = self._inbound.get(place, {})
        for connection in [connection for connection in neighbours if connection.is_closed]:
            del neighbours[connection]
        return neighbours

    def _close_idle(self, crowd: Iterable[dict[MuxedConnection, float]]) -> None:
        """Close the oldest connection that nobody uses, if there is one."""
        latest = trio.current_time() - FIRST_USE
        idle = [
            (since, neighbours, connection)
            for neighbours in crowd
            for connection, since in neighbours.items()
            if since < latest and not (connection.has_streams or connection.kept or connection.is_closed)
        ]
        if idle:
            _, neighbours, connection = min(idle, key=itemgetter(0))
            del neighbours[connection]
            self.manager.run_task(connection.close)


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
