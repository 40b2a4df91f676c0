"""A node: one host with its ways to announce services and to find peers."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from peertunnel.discovery import Announcement, Source
from peertunnel.discovery.given import Given
from peertunnel.discovery.mdns import Mdns
from peertunnel.errors import NotFound
from peertunnel.events import Emit, Path, PathChanged, Pong
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.service import Service
from peertunnel.transport.dialer import MAX_ADDRESSES
from peertunnel.transport.yamux import MuxedConnection

TUNNEL = "/portkey/tunnel/1.0.0"  # raw bytes, a stream per connection: what PortKey speaks too
DIAL_TIMEOUT = 5.0  # seconds for one try at a candidate; all its addresses are tried side by side
FIRST_PAUSE = 0.1  # seconds before a candidate that did not answer is tried again
LAST_PAUSE = 1.0  # seconds between tries in the end, so that a provider that returns serves again within 3 s
MAX_CANDIDATES = 64  # peers tried at a time; hostile records beyond that wait for one to be given up
PING_INTERVAL = 1.0  # seconds between pings, as in ping(8)
_MEASURING = 1.0  # seconds to wait for the first round trip before the path is told without one
ANY_PORT = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How to open a node.

    Attributes:
        identity: who we are.
        listen: multiaddrs to listen on for peers; port 0 picks one.
        mdns: whether to announce and to look on the local network.
    """

    identity: Identity
    listen: tuple[str, ...] = ANY_PORT
    mdns: bool = True


def path_of(connection: MuxedConnection) -> Path:
    """Return what kind of way a connection takes."""
    return "relayed" if connection.get_connection_type().value == "relayed" else "direct"


async def tell_path(connection: MuxedConnection, emit: Emit) -> None:
    """Tell of a new connection, with its round trip if that is measured soon."""
    with trio.move_on_after(_MEASURING):
        await connection.measured()
    round_trip = None if connection.round_trip is None else connection.round_trip * 1000
    emit(PathChanged(str(connection.peer_id), path_of(connection), round_trip))


class Node:
    """A running node; see `open_node`."""

    def __init__(self, host: Host, sources: tuple[Source, ...]) -> None:
        self.host = host
        self._sources = sources

    @property
    def peer_id(self) -> str:
        """Our peer id, base58."""
        return self.host.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now, each ending in /p2p/ and our id."""
        return self.host.addresses

    async def announce(self, service: Service) -> None:
        """Announce a service until cancelled."""
        announcement = Announcement(
            self.peer_id, lambda: self.addresses, lambda: service.topics_to_publish(time.time())
        )
        async with trio.open_nursery() as nursery:
            for source in self._sources:
                nursery.start_soon(source.announce, announcement)

    async def meet(self, service: Service) -> MuxedConnection:
        """Return a connection to a provider of a service, as soon as there is one; waits for ever."""
        meeting = _Meeting(self.host, service)
        async with trio.open_nursery() as nursery:
            for source in self._sources:
                nursery.start_soon(meeting.follow, source, nursery)
            await meeting.met.wait()
            nursery.cancel_scope.cancel()
        assert meeting.connection is not None
        return meeting.connection

    async def ping(self, service: Service, count: int, within: float) -> AsyncIterator[Pong]:
        """Measure the round trip to a provider of a service.

        Args:
            count: how many times.
            within: seconds for finding it.

        Raises:
            NotFound: no provider in time.
        """
        connection = None
        with trio.move_on_after(within):
            connection = await self.meet(service)
        if connection is None:
            raise NotFound(f"Found no provider of {service.name} within {within:g} s.")
        for turn in range(count):
            if turn:
                await trio.sleep(PING_INTERVAL)
            round_trip = await connection.ping()
            address = str(connection.get_transport_addresses()[0])
            yield Pong(str(connection.peer_id), path_of(connection), address, round_trip * 1000)


class _Meeting:
    """Tries every candidate beside the others, again and again, until one answers."""

    def __init__(self, host: Host, service: Service) -> None:
        self.connection: MuxedConnection | None = None
        self.met = trio.Event()
        self._host = host
        self._service = service
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._news: dict[str, trio.Event] = {}

    async def follow(self, source: Source, nursery: trio.Nursery) -> None:
        """Take the candidates of one source as they come."""
        with source.find(self._service) as channel:
            async for candidate in channel:
                known = self._addresses.get(candidate.peer_id)
                if known is None and len(self._addresses) >= MAX_CANDIDATES:
                    continue
                # What was told last is tried first; what was given before may still be right.
                merged = tuple(dict.fromkeys((*candidate.addresses, *(known or ()))))
                self._addresses[candidate.peer_id] = merged[:MAX_ADDRESSES]
                if known is not None:
                    self._news[candidate.peer_id].set()
                else:
                    self._news[candidate.peer_id] = trio.Event()
                    nursery.start_soon(self._try, candidate.peer_id)

    async def _try(self, peer_id: str) -> None:
        """Dial one candidate until it answers, sooner again when something new is known of it."""
        pause = FIRST_PAUSE
        while not self.met.is_set():
            self._news[peer_id] = trio.Event()
            try:
                connection = await self._host.dial(peer_id, self._addresses[peer_id], DIAL_TIMEOUT)
            except NotFound:
                with trio.move_on_after(pause):
                    await self._news[peer_id].wait()
                    pause = FIRST_PAUSE
                pause = min(2 * pause, LAST_PAUSE)
            else:
                if self.connection is not None:
                    with trio.CancelScope(shield=True):
                        await connection.close()
                    return
                self.connection = connection
                self.met.set()


@asynccontextmanager
async def open_node(options: NodeOptions) -> AsyncIterator[Node]:
    """Run a node.

    Raises:
        HostError: an address cannot be listened on.
    """
    async with trio.open_nursery() as nursery:
        sources: list[Source] = [Given()]
        if options.mdns:
            mdns = Mdns()
            sources.append(mdns)
            nursery.start_soon(mdns.run)
        try:
            async with open_host(options.identity, options.listen) as host:
                yield Node(host, tuple(sources))
        finally:
            nursery.cancel_scope.cancel()
