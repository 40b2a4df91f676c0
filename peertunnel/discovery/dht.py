"""Finding peers by the Kademlia DHT that all of libp2p shares, or by one of our own (libp2p specs, kad-dht).

1. `dht_membership` gets in through the bootstrap nodes, and keeps the routing table filled.
2. `dht_publisher` puts a provider's record on the twenty nodes nearest to each of its keys.
3. `dht_search` walks to those nodes and names each provider as soon as one of them tells of it.
4. `dht_server` answers others, if we are a server.

The first three walk by means of `dht_network`; what they may do is decided in `protocols.kademlia`.
"""

import time

import trio

from peertunnel.boundary import repeated
from peertunnel.discovery import Announcement, Candidate, ending
from peertunnel.discovery.dht_membership import Membership
from peertunnel.discovery.dht_network import Network
from peertunnel.discovery.dht_publisher import Publisher
from peertunnel.discovery.dht_search import Search
from peertunnel.discovery.dht_server import Server
from peertunnel.peers import Caller, Peers
from peertunnel.protocols.kademlia.messages import MAX_REQUEST, Contact
from peertunnel.protocols.kademlia.providers import Providers
from peertunnel.protocols.service import Service

_LOOK = 2.0  # seconds between looks at what we announce ourselves
_SWEEP = 3600.0  # seconds between sweeps of expired records


class Dht:
    """The DHT source. Its run() goes into a nursery, beside whatever announces and finds.

    Args:
        peers: how to talk to other peers.
        bootstrap: multiaddrs of nodes to begin with, each ending in /p2p/ and its id, or /dnsaddr/ names.
        prefix: of the protocol's name; nodes of another prefix form another network.
        server: whether to answer others, which only serves them if we can be dialled.

    Attributes:
        is_server: the same.
    """

    name = "the DHT"

    def __init__(
        self, peers: Peers, bootstrap: tuple[str, ...], *, prefix: str = "/ipfs", server: bool = False
    ) -> None:
        self.is_server = server
        self._peers = peers
        self._network = Network(peers, f"{prefix}/kad/1.0.0")
        self._membership = Membership(peers, self._network, bootstrap)
        self._providers = Providers()
        self._server = Server(self._network.table, self._providers)
        self._searches: list[Search] = []
        self._nursery: trio.Nursery | None = None

    @property
    def size(self) -> int:
        """How many nodes the routing table holds."""
        return len(self._network.table)

    @property
    def records(self) -> int:
        """How many provider records we hold."""
        return len(self._providers)

    async def run(self) -> None:
        """Take part in the network until cancelled; what is announced or sought before that waits for it."""
        try:
            with ending(self._searches):
                async with trio.open_nursery() as self._nursery:
                    if self.is_server:
                        self._peers.answer(self._network.protocol, self._answer, limit=MAX_REQUEST)
                        self._nursery.start_soon(repeated, _SWEEP, self._sweep)
                    self._nursery.start_soon(self._membership.run)
                    for search in self._searches:
                        self._nursery.start_soon(self._search, search)
                    await trio.sleep_forever()
        finally:
            self._nursery = None
            if self.is_server:
                self._peers.stop_answering(self._network.protocol)

    async def announce(self, announcement: Announcement) -> None:
        """Announce a provider until cancelled, and withdraw then what we hold ourselves."""
        publisher = Publisher(self._network, announcement)
        async with trio.open_nursery() as nursery:
            if self.is_server:
                nursery.start_soon(self._hold, publisher)
            nursery.start_soon(publisher.run)

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Look for a service's providers until the channel is closed, so use it in a with block."""
        search = Search(self._network, self._held, service)
        self._searches.append(search)
        if self._nursery is not None:
            self._nursery.start_soon(self._search, search)
        return search.channel

    async def _search(self, search: Search) -> None:
        await search.run()
        self._searches.remove(search)

    async def _hold(self, publisher: Publisher) -> None:
        """Hold a record of our own, too: we may be one of the nodes that are asked for it."""
        held: set[bytes] = set()
        try:
            while True:
                contact, keys = publisher.contact, set(publisher.keys)
                for key in held - keys:
                    self._providers.remove(key, contact.peer_id)
                for key in keys:
                    self._providers.add(key, contact, None, time.time())
                held = keys
                await trio.sleep(_LOOK)
        finally:
            for key in held:
                self._providers.remove(key, self._network.own_id)

    async def _sweep(self) -> None:
        self._providers.tick(time.time())

    def _held(self, key: bytes) -> list[Contact]:
        return self._providers.of(key, time.time())

    def _answer(self, caller: Caller, data: bytes) -> bytes | None:
        answer = self._server.answer(caller, data)
        self._membership.called(caller)
        return answer
