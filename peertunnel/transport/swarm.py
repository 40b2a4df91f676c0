"""The connections of a node: dialled, taken in, and limits for what peers open from one place."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.boundary import contained, note_failure
from peertunnel.budget import place_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dialer import DialError, Transport, dial
from peertunnel.transport.tcp import SockAddress, Tcp
from peertunnel.transport.upgrade import UpgradeError, Upgrader
from peertunnel.transport.way import DIRECT, PUNCHED, Way

if TYPE_CHECKING:
    from trio_typing import TaskStatus

MAX_CONNECTIONS = 2048  # connections in all; each costs some 60 KiB and two descriptors at the most
MAX_PER_PLACE = MAX_CONNECTIONS // 4  # of them opened from one network: one machine can't have them all
ROOM = (
    1 / 8
)  # of either number that is kept free for newcomers, as long as there are connections that nobody uses
FIRST_USE = (
    5.0  # seconds in which a new connection need not be used; a peer that wants something asks at once
)


class Network:
    """The connections of a node; `run` runs them.

    Args:
        upgrader: secures sockets.

    Attributes:
        tcp: dials over TCP.
        transports: all ways to dial.
        watchers: called with each connection that stands, whoever opened it.
    """

    def __init__(self, upgrader: Upgrader) -> None:
        self.upgrader = upgrader
        self.tcp = Tcp(self._secure_dialled)
        self.transports: list[Transport] = [self.tcp]
        self.watchers: list[Callable[[MuxedConnection], None]] = []
        self._connections: dict[MuxedConnection, None] = {}  # in the order in which they came
        self._of_peers: dict[str, list[MuxedConnection]] = {}
        self._crossing: dict[tuple[str, int], tuple[ID, bool]] = {}
        self._inbound: dict[str, dict[MuxedConnection, float]] = {}  # by where they come from, and since when
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Run connections until cancelled, which ends them."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def connections(self, peer_id: str | None = None) -> list[MuxedConnection]:
        """Return the living connections to a peer (its id, base58), or all, the oldest first."""
        found = self._connections if peer_id is None else self._of_peers.get(peer_id, ())
        return [connection for connection in found if not connection.is_closed]

    async def connect(self, peer_id: ID, addresses: Iterable[Multiaddr], within: float) -> MuxedConnection:
        """Connect to a peer and serve the connection.

        Raises:
            DialError: no address led to the peer in time, or it hung up at once.
        """
        connection = await dial(peer_id, list(addresses), self.transports, within)
        is_taken = False
        try:
            await self.take_in(connection)
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
        connection = await self.upgrader.upgrade(sock, peer_id, is_client=is_client, way=way)
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

    async def take_in(self, connection: MuxedConnection) -> None:
        """Serve a connection from now on; raises UpgradeError if it is over already, or one too many."""
        if len(self._connections) >= MAX_CONNECTIONS:
            self.start_soon(connection.close)
            raise UpgradeError("there are too many connections")
        self.start_soon(self._serve, connection)
        with trio.CancelScope(shield=True):  # a moment: who gave up now would leave one that nobody hears of
            await connection.event_started.wait()
        if connection.is_closed:
            raise UpgradeError(connection.reason)
        for watcher in self.watchers:
            try:
                watcher(connection)
            except Exception as error:  # noqa: BLE001  a task boundary: the others hear of it all the same
                note_failure(watcher, error)

    def start_soon(self, work: Callable[..., Awaitable[None]], *details: object) -> None:
        """Run something for as long as connections are served; its failure is logged, and ends nothing else."""
        assert self._nursery is not None
        self._nursery.start_soon(contained, work, *details, name=work)

    async def _serve(self, connection: MuxedConnection) -> None:
        """Run a connection, and keep it for as long as it lives."""
        peer_id = str(connection.peer_id)
        self._connections[connection] = None
        self._of_peers.setdefault(peer_id, []).append(connection)
        try:
            await connection.start()
        finally:
            del self._connections[connection]
            self._of_peers[peer_id].remove(connection)
            if not self._of_peers[peer_id]:
                del self._of_peers[peer_id]

    @asynccontextmanager
    async def newcomers(self, peer_id: str) -> AsyncIterator[trio.MemoryReceiveChannel[MuxedConnection]]:
        """Give the connections to a peer (by its id, base58) as they come to stand."""
        send, receive = trio.open_memory_channel[MuxedConnection](MAX_CONNECTIONS)

        def tell(connection: MuxedConnection) -> None:
            if str(connection.peer_id) == peer_id:
                send.send_nowait(connection)

        self.watchers.append(tell)
        try:
            yield receive
        finally:
            self.watchers.remove(tell)  # before anybody else runs: who told a closed channel would fail
            receive.close()

    async def secure(
        self, sock: socket.socket, peer_id: ID, way: Way, address: Multiaddr, *, is_client: bool
    ) -> MuxedConnection:
        """Secure a socket that leads to a peer some other way, see `Upgrader.upgrade`; raises UpgradeError."""
        return await self.upgrader.upgrade(sock, peer_id, is_client=is_client, way=way, address=address)

    async def _secure_dialled(self, sock: socket.socket, peer_id: ID) -> MuxedConnection:
        return await self.upgrader.upgrade(sock, peer_id, is_client=True)

    # -- room for those that come -----------------------------------------------------------------------------------

    async def _take_from(self, place: str, connection: MuxedConnection) -> None:
        """Serve a connection that a peer has opened from a place; raises UpgradeError."""
        self._inbound.setdefault(place, {})[connection] = trio.current_time()
        if len(self._connections) >= MAX_CONNECTIONS * (1 - ROOM):
            self._close_idle(self._inbound.values())
        await self.take_in(connection)

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
            if since < latest and not (connection.is_used or connection.kept or connection.is_closed)
        ]
        if idle:
            _, neighbours, connection = min(idle, key=itemgetter(0))
            del neighbours[connection]
            self.start_soon(connection.close)
