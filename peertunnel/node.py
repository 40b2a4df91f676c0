"""A node: one host with its ways to announce services and to find peers."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from peertunnel.auth import Authenticator
from peertunnel.config import Transports, Ways
from peertunnel.credentials import Credentials
from peertunnel.discovery import Announcement, Source, sustain
from peertunnel.discovery.dht import Dht
from peertunnel.discovery.given import Given
from peertunnel.discovery.mdns import Mdns
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.errors import AnotherKey, NotFound, Refused, StoreError, shortage
from peertunnel.events import Complaint, Emit, Warned
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.known import KnownPeers, Verdict
from peertunnel.meeting import Meeting, NoProof, Prover
from peertunnel.protocols.address import split_address
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.protocols.service import Service
from peertunnel.reach import Reach
from peertunnel.transport.addresses import is_public
from peertunnel.transport.circuits import relay_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import identified

GO_TUNNEL = (
    "/peertunnel/1.0.0"  # the same under the name that the Go PeerTunnel uses: for public services only
)
TUNNEL = "/portkey/tunnel/1.0.0"  # raw bytes, a stream per connection: what PortKey speaks too
DIAL_TIMEOUT = 5.0  # seconds for one try to reach a peer that we are connected to in another way
MAX_WARNED = 64  # peers with another key that the user is told of
ANY_PORT = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How to open a node.

    Attributes:
        identity: who we are.
        listen: multiaddrs to listen on for peers; port 0 picks one.
        mdns: whether to announce and to look on the local network.
        dht: whether to announce and to look in a Kademlia network.
        bootstrap: multiaddrs of peers that lead into it.
        dht_prefix: what its protocol's name begins with; "/ipfs" is the public one.
        rendezvous: multiaddrs of rendezvous points, each ending in /p2p/ and the peer id.
        known: the providers' keys that are known, None to know none.
        accept_new_key: whether another key is taken for one that is known.
        relays: multiaddrs of relays through which to be reached, each ending in /p2p/ and the peer id.
        portmap: whether to ask the router to let others in.
        ways: which ways tunnels may take: "direct" uses relays for punching only.
        transport: what peers are reached over.
    """

    identity: Identity
    listen: tuple[str, ...] = ANY_PORT
    mdns: bool = True
    dht: bool = False
    bootstrap: tuple[str, ...] = ()
    dht_prefix: str = "/ipfs"
    rendezvous: tuple[str, ...] = ()
    known: KnownPeers | None = None
    accept_new_key: bool = False
    relays: tuple[str, ...] = ()
    portmap: bool = False
    ways: Ways = "any"
    transport: Transports = "auto"


def no_provider(service: Service, within: float, refusal: Refused | None) -> NotFound | Refused:
    """Give the error for a search that was in vain for so many seconds, with a refusal or without one."""
    if isinstance(refusal, AnotherKey):
        return AnotherKey(f"The provider of {service.name} has another key than before.")
    if refusal is not None:
        return Refused(
            f"A peer was found for {service.name}, but the two do not agree on the id, or it refused us."
        )
    return NotFound(f"Found no provider of {service.name} within {within:g} s.")


class Node:
    """A running node; see `open_node`."""

    def __init__(
        self,
        host: Host,
        sources: tuple[Source, ...],
        options: NodeOptions,
        reach: Reach | None = None,
        emit: Emit = lambda event: None,
    ) -> None:
        self.host = host
        self.reach = reach or Reach(host)
        self.sources = sources
        self._emit = emit
        self._ways = options.ways
        self._relays = options.relays
        self._known = options.known
        self._accept_new_key = options.accept_new_key
        self._trusted: set[tuple[str, str]] = set()  # services' labels, and who was taken for their provider
        self._warned: set[str] = set()
        self._complaint = Complaint()  # about the file of known keys

    @property
    def peer_id(self) -> str:
        """Our peer id, base58."""
        return self.host.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now, each ending in /p2p/ and our id."""
        return self.host.addresses

    @property
    def may_go_directly(self) -> bool:
        """Whether peers may learn our addresses."""
        return self._ways != "relayed"

    def may_dial(self, address: str) -> bool:
        """Return whether a peer may be called at a multiaddr."""
        return self.may_go_directly or relay_of(address) is not None

    def may_carry(self, connection: MuxedConnection) -> bool:
        """Return whether tunnels may use a connection."""
        return self._ways == "any" or (connection.way.kind == "relayed") == (self._ways == "relayed")

    async def dial_directly(self, connection: MuxedConnection, over: str = "") -> MuxedConnection | None:
        """Dial the peer at the other end where it says that it is, without a relay; None where nobody answers.

        Args:
            over: what the addresses have to contain, such as "/tcp/".
        """
        told = (await identified(connection)).addresses
        direct = [address for address in told if relay_of(address) is None and over in address]
        try:
            return await self.host.dial(str(connection.peer_id), direct, DIAL_TIMEOUT)
        except NotFound:
            return None

    def introduce(self, service: Service) -> None:
        """Show the relays that the user has named, here or in a link, that we know a service's secret."""
        if service.root is not None:
            named = (split_address(address)[1] for address in self._relays)
            linked = (relay_of(address) for address in service.addresses)
            relays = {relay for relay in (*named, *linked) if relay}
            self.host.introduce(Credentials(self.host, service.root, relays).show)

    async def announce(self, service: Service) -> None:
        """Announce ourselves under a service's topics until cancelled."""
        announcement = Announcement(
            self.peer_id, lambda: self.addresses, lambda: service.topics_to_publish(time.time())
        )
        async with trio.open_nursery() as nursery:
            for source in self.sources:
                nursery.start_soon(sustain, source, self._emit, source.announce, announcement)

    # -- for consumers --------------------------------------------------------------------------------------------

    async def meet(
        self, service: Service, emit: Emit, on_refused: Callable[[Refused], None]
    ) -> MuxedConnection:
        """Return a connection to a provider of a service that has proven itself; waits for ever.

        Args:
            emit: takes a warning when a provider has another key than the one that is known, and an error when those that
                are known can't be read or written any more.
            on_refused: called whenever a peer answered and did not prove itself, refused us, or has another key.

        Raises:
            StoreError: the keys that are known can't be read or written, and nothing runs yet.
        """
        met = trio.Event()
        outcome: list[MuxedConnection | StoreError] = []

        def take(connection: MuxedConnection) -> None:
            if not met.is_set():
                outcome.append(self._accepted(service, connection, emit, on_refused))
                met.set()
            else:
                self.host.start_soon(connection.close)

        prover: Prover = NoProof(take)
        async with trio.open_nursery() as nursery:
            if service.root is not None:
                prover = authenticator = Authenticator(self.host, Role.CONSUMER, service.root, on_proven=take)
                self.host.serve(AUTH, authenticator.accept)
                nursery.start_soon(self.announce, service.seekers())
            meeting = Meeting(
                self.host, self.sources, service, prover, on_refused=on_refused, may_dial=self.may_dial
            )
            nursery.start_soon(meeting.run)
            try:
                await met.wait()
            finally:
                self.host.stop_serving(AUTH)
            nursery.cancel_scope.cancel()
        if isinstance(outcome[0], StoreError):
            raise outcome[0]
        return outcome[0]

    async def prove(self, service: Service, connection: MuxedConnection) -> None:
        """Have a provider that we have met prove itself on another connection.

        Raises:
            Refused: it did not.
            NotFound: the connection was lost first.
        """
        if service.root is not None:
            prover = Authenticator(self.host, Role.CONSUMER, service.root, on_proven=lambda connection: None)
            await prover.prove(connection)

    def _accepted(
        self, service: Service, connection: MuxedConnection, emit: Emit, on_refused: Callable[[Refused], None]
    ) -> MuxedConnection | StoreError:
        """Return a connection to a peer that is our provider, or why we can't know.

        Raises:
            Refused: it is another one.
            NotFound: we can't know at the moment.
        """
        try:
            refusal = self._refusal(service, str(connection.peer_id), emit)
        except (NotFound, StoreError) as error:
            self.host.start_soon(connection.close)
            if isinstance(error, NotFound):
                raise  # it is tried again
            return error  # raised in the background, where we are called, it would only be logged
        if refusal is None:
            return connection
        self.host.start_soon(connection.close)
        on_refused(refusal)  # the meeting tells only of those that we have called
        raise refusal

    def _refusal(self, service: Service, peer_id: str, emit: Emit) -> Refused | None:
        """Say why a peer is no provider: it has not the key that was given, or that we know; a first one is remembered.

        Raises:
            NotFound: too many files are open to know it.
            StoreError: the keys that are known can't be read or written, and nothing runs yet.
        """
        stranger = Refused(f"Peer {peer_id} is not the one that is known.")
        if service.peer_id is not None:
            return None if peer_id == service.peer_id else stranger
        known, label = self._known, service.label_to_know
        if known is None or label is None:
            return None
        try:
            verdict = known.check(label, peer_id)
            may_come = verdict is not Verdict.CHANGED or self._accept_new_key
            if may_come and verdict is not Verdict.SAME:
                may_come = known.remember(label, peer_id, beside=self._accept_new_key)
            if not may_come:
                self._warn_of(service, peer_id, emit)
                return AnotherKey(stranger.message)
        except StoreError as error:
            is_passing = shortage(error.__cause__) is not None
            if not (self._trusted or is_passing):
                raise  # nothing runs yet
            self._complaint.make(error, emit)
            if is_passing and (label, peer_id) not in self._trusted:
                raise NotFound(error.message) from error
            return None if (label, peer_id) in self._trusted else stranger
        self._complaint.withdraw()
        self._trusted.add((label, peer_id))
        return None

    def _warn_of(self, service: Service, peer_id: str, emit: Emit) -> None:
        """Say once of each peer that it is another one than before; it comes again and again, and ids are free."""
        if peer_id not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(peer_id)
            emit(
                Warned(
                    f"Peer {peer_id} knows the id of {service.name}, but is not the provider known from before: "
                    "if it was replaced, run pt bind with --accept-new-key."
                )
            )


@asynccontextmanager
async def open_node(options: NodeOptions, emit: Emit = lambda event: None) -> AsyncIterator[Node]:
    """Run a node.

    Args:
        options: how.
        emit: takes PunchFailed, and Warned when a source has failed.

    Raises:
        HostError: an address cannot be listened on.
    """
    async with (
        open_host(options.identity, options.listen, options.transport) as host,
        trio.open_nursery() as nursery,
    ):
        sources: list[Source] = [Given()]
        running: list[Mdns | Dht | Rendezvous] = []
        if options.mdns:
            running.append(Mdns())
        if options.dht:
            is_server = any(is_public(address) for address in host.addresses)
            running.append(Dht(host, options.bootstrap, prefix=options.dht_prefix, server=is_server))
        if options.rendezvous:
            running.append(Rendezvous(host, options.rendezvous))
        reach = Reach(
            host,
            options.relays,
            is_hidden=options.ways == "relayed",
            maps_ports=options.portmap,
            finds_relays=options.dht,
            emit=emit,
        )
        await nursery.start(reach.run)
        for source in running:
            nursery.start_soon(sustain, source, emit, source.run)
        try:
            yield Node(host, (*sources, *running), options, reach, emit)
        finally:
            nursery.cancel_scope.cancel()
