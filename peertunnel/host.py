"""The libp2p host: where we listen, whom we are connected to, and which protocols we serve.

The library's own host is not used: its accept loop refuses everybody after 250 connections, its dialer tries one
address per transport and remembers failures for a minute, and what the two import is a quarter of a node's memory.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel import __version__
from peertunnel.boundary import contained
from peertunnel.config import Transports
from peertunnel.errors import NotFound, PeerTunnelError
from peertunnel.identity import Identity
from peertunnel.multiaddrs import address_texts, readable
from peertunnel.peers import Answer, Identified
from peertunnel.protocols.identify import MAX_ADDRESSES, PUSH, Identify
from peertunnel.protocols.identify import PROTOCOL as IDENTIFY
from peertunnel.protocols.record import PeerRecord, seal
from peertunnel.transport import identify, pings
from peertunnel.transport.addresses import dialable
from peertunnel.transport.circuits import HOP, STOP, Circuits
from peertunnel.transport.connection import LINGER, MuxedConnection
from peertunnel.transport.dialer import DialError
from peertunnel.transport.listener import Listener, ListenError, bind_tcp
from peertunnel.transport.observed import Observed
from peertunnel.transport.quic import create_quic, is_quic, why_not
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.requests import Answering, request, tell
from peertunnel.transport.reservations import Reservations
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.swarm import Network
from peertunnel.transport.tcp import sources_of
from peertunnel.transport.upgrade import Upgrader
from peertunnel.transport.visits import Visits
from peertunnel.transport.witnesses import Witnesses

AGENT = f"peertunnel/{__version__}"
PARTING = 60.0  # seconds for what ended tunnels have sent to arrive on a slow line, unless we stop at once
CHECK = 3.0  # seconds for a peer to answer once the network has changed: a round trip and two retransmissions
_log = logging.getLogger(__name__)

# When it is imported, the library has its warnings printed; who runs us decides what is seen.
logging.getLogger("libp2p").setLevel(logging.NOTSET)
logging.getLogger("libp2p").propagate = True


class HostError(PeerTunnelError):
    """The node cannot listen for peers."""


class Host:
    """One libp2p node; `open_host` runs it.

    Args:
        identity: who we are.
        transport: what to dial and to listen over: "tcp", "quic", or "auto" for both.

    Raises:
        HostError: QUIC alone is wanted, and was not built.
    """

    def __init__(self, identity: Identity, transport: Transports = "auto") -> None:
        self.peer_id = identity.peer_id
        self.reactor = Reactor()
        self.nursery: trio.Nursery
        self._identity = identity
        self._visits = Visits(self)
        self._handlers: dict[str, Callable[[MuxedStream], None]] = {}
        self.withdrawn: frozenset[str] = frozenset()  # protocols that are served, but named no more
        self._listeners: list[Listener] = []
        self._listening: list[str] = []
        self._sources: list[Callable[[], Iterable[str]]] = []
        self.network_changed = trio.Event()  # replaced each time
        self.observed = Observed(lambda: self._listening)
        self.network = Network(Upgrader(identity, self.reactor, self))
        self._transport = transport
        welcome = partial(self.start_soon, self.network.welcome)
        self.quic = None if transport == "tcp" else create_quic(identity, self.reactor, self, welcome)
        if self.quic is not None:
            self.network.transports = [self.quic] if transport == "quic" else [self.quic, self.network.tcp]
        elif transport == "quic":
            raise HostError(
                f"This peertunnel does not speak QUIC: {why_not()}.", hint="Leave --transport out."
            )
        self._witnesses = Witnesses(self.network, self.observed)
        self.reservations = Reservations(self.peer_id, self._visits)
        self.add_addresses(lambda: self.reservations.addresses)
        self._circuits = Circuits(self.network, self, self._visits, self.reservations.admits)
        self.network.transports.append(self._circuits)
        self.watch(lambda connection: self.start_soon(self._get_to_know, connection))
        self.serve(STOP, self._circuits.accept)
        self.serve(IDENTIFY, self._identify)
        self.serve(PUSH, lambda stream: self.start_soon(self._hear_news, stream))
        self.serve(pings.PROTOCOL, lambda stream: self.start_soon(pings.answer, stream))

    def start_soon(self, work: Callable[..., Awaitable[object]], *details: object) -> None:
        """Run something in the background until the host ends; its failure is logged, and ends nothing else."""
        self.nursery.start_soon(contained, work, *details, name=work)

    # -- where we are ---------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now, each ending in /p2p/ and our id."""
        return tuple(f"{address}/p2p/{self.peer_id}" for address in self._places())

    @property
    def listening(self) -> tuple[str, ...]:
        """The multiaddrs that we listen on, with the real port; wildcards stay."""
        return tuple(self._listening)

    def _places(self) -> tuple[str, ...]:
        more = (address for source in self._sources for address in source())
        return tuple(dict.fromkeys((*dialable(self._listening), *more)))

    def add_addresses(self, source: Callable[[], Iterable[str]]) -> None:
        """Announce what `source` gives, too: multiaddrs without our peer id, asked for again and again."""
        self._sources.append(source)

    def listen(self, addresses: Iterable[str]) -> list[Listener]:
        """Bind the addresses; whoever runs the listeners accepts peers.

        Raises:
            HostError: an address is taken, malformed or not this machine's.
        """
        try:
            wanted = [Multiaddr(address) for address in addresses]
            tcp = [] if self._transport == "quic" else [place for place in wanted if not is_quic(place)]
            sockets = bind_tcp(tcp)
            names = [sock.getsockname() for sock in sockets]
            named = [place for place in wanted if place not in tcp]
            quic: list[Multiaddr] = []
            if self.quic is None and named:
                raise ListenError(f"{named[0]}: this installation has no QUIC, or was told not to use it")
            if self.quic is not None:
                quic = self.quic.listen(named) if named else self.quic.listen_beside(names)
        except (ListenError, ValueError) as error:
            raise HostError(
                f"Cannot listen for peers on {error}.", hint="Choose other addresses with --p2p-listen."
            ) from error
        self._listeners = [Listener(sock, self.network.accept) for sock in sockets]
        self._listening += map(str, [*(listener.address for listener in self._listeners), *quic])
        self.network.tcp.sources = sources_of(names)
        return self._listeners

    def stop_accepting(self) -> None:
        """Take no more connections, which frees our TCP ports; those that stand go on."""
        for listener in self._listeners:
            listener.close()
        if self.quic is not None:
            self.quic.stop_accepting()
        self.stop_serving(STOP)

    def _identify(self, stream: MuxedStream) -> None:
        self.start_soon(identify.answer, stream, self._told(stream.muxed_conn), self.peer_id)

    def _told(self, connection: MuxedConnection) -> Identify:
        places = tuple(address.to_bytes() for address in readable(self._places()[:MAX_ADDRESSES]))
        return Identify(
            agent=AGENT,
            protocols=frozenset(self._handlers) - self.withdrawn,
            addresses=places,
            observed=connection.get_transport_addresses()[0].to_bytes(),
            record=seal(PeerRecord(self.peer_id, time.time_ns(), places), self._identity.sign),
        )

    async def push(self, connection: MuxedConnection) -> None:
        """Tell a peer unasked what we are now, and return when it has heard that, or will not."""
        await identify.push(connection, self._told(connection), self.peer_id)

    # -- streams --------------------------------------------------------------------------------------------------

    def serve(self, protocol: str, handler: Callable[[MuxedStream], None]) -> None:
        """Hand streams of a protocol to `handler`, which must not wait, as soon as they are negotiated."""
        self._handlers[protocol] = handler

    def stop_serving(self, protocol: str) -> None:
        """Refuse new streams of a protocol."""
        self._handlers.pop(protocol, None)

    stop_answering = stop_serving

    def stop_serving_all(self) -> None:
        """Refuse all new streams: we end, and nobody is left to answer them."""
        self._handlers.clear()

    def speaks(self, protocol: str) -> bool:
        """Return whether a stream of this protocol is welcome now."""
        return protocol in self._handlers

    def offered(self) -> list[str]:
        """Return the protocols that a peer may see."""
        return list(self._handlers)

    def route(self, stream: MuxedStream) -> None:
        """Hand a negotiated stream to its handler, whose failure ends this stream only."""
        handler = self._handlers.get(stream.protocol or "", MuxedStream.abort)
        try:
            handler(stream)
        except Exception:  # noqa: BLE001  a task boundary: the connection carries others' streams, too
            _log.exception("a handler of %s failed", stream.protocol)
            stream.abort()

    def watch(self, watcher: Callable[[MuxedConnection], None]) -> None:
        """Have `watcher`, which must not wait, called with each new connection, whoever opened it."""
        self.network.watchers.append(watcher)

    async def _get_to_know(self, connection: MuxedConnection) -> None:
        """Ask a peer who it is, as everybody does: rust-libp2p's clients wait for it; see what we are told."""
        is_wanted = self.observed.wants(connection)
        if is_wanted:
            self.observed.note(connection, b"")
        answer = await identify.request(connection)
        if is_wanted:
            self.observed.note(connection, answer.observed)
        if is_wanted or self.observed.misses(connection):
            await self._note_relay(connection, answer)

    async def _hear_news(self, stream: MuxedStream) -> None:
        """Take what a peer tells of itself unasked: it may be a relay since a moment ago."""
        connection = stream.muxed_conn
        answer = await connection.acquaintance.hear(stream)
        if answer is not None and (connection in self.observed or self.observed.misses(connection)):
            await self._note_relay(connection, answer)

    async def _note_relay(self, connection: MuxedConnection, answer: Identify) -> None:
        """Keep a relay in mind, and have it see all of our ports, where the peer is one."""
        if HOP in answer.protocols:
            await connection.measured()
            place, peer_id = str(connection.get_transport_addresses()[0]), str(connection.peer_id)
            distance = connection.round_trip or float("inf")
            self.reservations.offer(peer_id, [place], is_found=True, distance=distance)
            await self._witnesses.keep(connection, address_texts(answer.addresses, peer_id))

    def newcomers(
        self, peer_id: str
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[MuxedConnection]]:
        """Give the connections to a peer as they come to stand."""
        return self.network.newcomers(peer_id)

    async def note_changed_network(self) -> None:
        """Find out which connections still live, now that addresses have changed or the machine has slept."""
        self.network_changed.set()
        self.network_changed = trio.Event()
        self.reservations.retry()
        if self.quic is not None:
            self.quic.rebound()
        await self.check()
        self._witnesses.retry()
        await self.observed.look_again()

    async def check(self, spared: str = "") -> None:
        """Close the connections whose peers don't answer at once, but for those to one peer (by its id)."""
        async with trio.open_nursery() as nursery:
            for connection in (*self.all_connections(), *self._witnesses.connections):
                if str(connection.peer_id) != spared:
                    nursery.start_soon(connection.close_unless_it_answers, CHECK)

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
        try:
            return await self.network.connect(ID.from_base58(peer_id), readable(addresses), within)
        except DialError as error:
            raise NotFound(f"Peer {peer_id} did not answer: {error}.") from error

    def connections(self, peer_id: str) -> list[MuxedConnection]:
        """Return the living connections to a peer, the newest first."""
        return self.network.connections(peer_id)[::-1]

    def all_connections(self) -> list[MuxedConnection]:
        """Return every living connection."""
        return self.network.connections()

    def standing(self, peer_id: str) -> frozenset[object]:
        """Return the connections to a peer that stand, for comparison with those of another time."""
        return frozenset(self.connections(peer_id))

    def visit(
        self, peer_id: str, addresses: Iterable[str], within: float
    ) -> AbstractAsyncContextManager[MuxedConnection]:
        """Use a connection to a peer, the one that stands or one that is opened within so many seconds.

        Raises:
            RequestError: the peer was not reached.
        """
        return self._visits.stay(peer_id, addresses, within)

    def introduce(self, how: Callable[[MuxedConnection], Awaitable[None]]) -> None:
        """Have `how` called with a connection to a relay before the relay is asked for anything."""
        self._visits.introduce = how

    # -- questions and answers ------------------------------------------------------------------------------------

    def sign(self, data: bytes) -> bytes:
        """Sign with the key of our peer id (Ed25519, 64 bytes)."""
        return self._identity.sign(data)

    def answer(self, protocol: str, answer: Answer, *, limit: int) -> None:
        """Answer requests of a protocol from now on; see `peers.Peers`."""
        self.serve(protocol, Answering(answer, limit, self.nursery).accept)

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
            return await identify.identified(connection)

    async def close(self, within: float = LINGER) -> None:
        """Close all connections, which tells the peers; see `MuxedConnection.close`."""
        with trio.move_on_after(within):
            await self._close("relayed", within)  # first: what they have sent goes through the others
            await self._circuits.settled()
        await self._close("", within)

    async def _close(self, kind: str, within: float) -> None:
        async with trio.open_nursery() as nursery:
            for connection in self.network.connections():
                if kind in ("", connection.way.kind):
                    nursery.start_soon(connection.close, within)


@asynccontextmanager
async def open_host(
    identity: Identity, listen: Iterable[str], transport: Transports = "auto"
) -> AsyncIterator[Host]:
    """Run a node.

    Args:
        identity: who we are.
        listen: multiaddrs to listen on, port 0 for any.
        transport: what to dial and to listen over: "tcp", "quic", or "auto" for both.

    Raises:
        HostError: an address cannot be listened on.
    """
    host = Host(identity, transport)
    listeners = host.listen(listen)
    async with trio.open_nursery() as reactor:
        reactor.start_soon(host.reactor.run)
        try:
            await reactor.start(host.network.run)
            async with trio.open_nursery() as nursery:
                host.nursery = nursery
                for listener in listeners:
                    nursery.start_soon(listener.run)
                if host.quic is not None:
                    await reactor.start(host.quic.run)
                try:
                    yield host
                finally:
                    host.stop_accepting()
                    host.stop_serving_all()
                    nursery.cancel_scope.cancel()
            await host.close(PARTING)
        finally:
            with trio.CancelScope(shield=True):
                await host.close()
            host.stop_accepting()
            reactor.cancel_scope.cancel()  # last: what closes above still needs it
