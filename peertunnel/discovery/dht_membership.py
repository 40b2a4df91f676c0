"""Being one of the DHT's nodes: getting in, staying in, and getting to know who calls."""

import logging
import os
from collections import Counter

import trio

from peertunnel.boundary import contained
from peertunnel.discovery.dht_bootstrap import resolve
from peertunnel.discovery.dht_contacts import address_bytes, id_bytes
from peertunnel.discovery.dht_network import Network
from peertunnel.peers import Caller, Peers, RequestError
from peertunnel.protocols.kademlia.messages import Contact, K, Message, Type
from peertunnel.protocols.kademlia.places import farthest, within_reach

_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0  # seconds between tries to get in, doubling
_LOOK = 5.0  # seconds between looks whether anybody is left
_REFRESH = 600.0  # seconds between refreshes of the table; as in go-libp2p-kad-dht
_FIRST_REFRESH = (
    1.0  # seconds to the second one, doubling while we know few: nodes that start together meet late
)
_RANDOM_WALKS = 3  # for each refresh; they fill the buckets far from us, where most of the keys are
_CHECK = 60.0  # seconds between questions to peers that failed, or have been silent for a refresh
_IDENTIFYING = 10.0  # seconds for a caller to tell whether it serves the DHT
_MAX_ASKED = 512  # callers that are asked at a time what they are: those that don't say it hold up nobody
_MAX_ASKED_PER_PLACE = _MAX_ASKED // 16  # of them in one network, or behind one relay: peer ids are free
_MAX_CALLERS = 1024  # callers that are not asked again
_log = logging.getLogger(__name__)


class Membership:
    """Keeps the routing table filled.

    Args:
        peers: how to talk to other peers.
        network: whose table it is.
        bootstrap: multiaddrs of nodes to begin with.
    """

    def __init__(self, peers: Peers, network: Network, bootstrap: tuple[str, ...]) -> None:
        self._peers = peers
        self._network = network
        self._bootstrap = bootstrap
        self._to_identify, self._callers = trio.open_memory_channel[Caller](_MAX_ASKED)
        self._asked: Counter[str] = Counter()  # callers, by place, that have yet to tell what they are
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Get in, and stay in; see `called`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stay)
            nursery.start_soon(self._refresh)
            nursery.start_soon(self._check)
            nursery.start_soon(self._identify_all)

    def called(self, caller: Caller) -> None:
        """Note who has asked us something: a node that serves the DHT will be entered into the table."""
        now = trio.current_time()
        asked = self._seen.pop(caller.peer_id, float("-inf"))
        if asked + _REFRESH > now:
            self._seen[caller.peer_id] = asked
            return
        if self._asked.total() >= _MAX_ASKED or self._asked[caller.place] >= _MAX_ASKED_PER_PLACE:
            return  # it will call again
        self._asked[caller.place] += 1
        self._to_identify.send_nowait(caller)
        self._seen[caller.peer_id] = now
        if len(self._seen) > _MAX_CALLERS:
            del self._seen[next(iter(self._seen))]

    async def _stay(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if not self._network.table.is_alive:
                await self._join()
            if self._network.table.is_alive:
                pause = _FIRST_PAUSE
                await trio.sleep(_LOOK)
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)

    async def _join(self) -> None:
        contacts = [c for c in await resolve(self._bootstrap) if c.peer_id != self._network.own_id]
        await self._greet(contacts)

    async def _refresh(self) -> None:
        pause = _FIRST_REFRESH
        while True:
            await self._network.known()
            await self._network.find_node(self._network.own_id)
            for _ in range(_RANDOM_WALKS):
                await self._network.find_node(os.urandom(32))
            await trio.sleep(pause if len(self._network.table) < K else _REFRESH)
            pause = min(2 * pause, _REFRESH)

    async def _check(self) -> None:
        while True:
            await trio.sleep(_CHECK)
            await self._greet(self._network.table.silent(trio.current_time() - _REFRESH))

    async def _greet(self, contacts: list[Contact]) -> None:
        """Ask some nodes at the same time for those near us."""
        request = Message(Type.FIND_NODE, self._network.own_id)

        async def ask(contact: Contact) -> None:
            try:
                await self._network.ask(contact, request)
            except RequestError as error:
                _log.debug("%s", error)

        async with trio.open_nursery() as nursery:
            for contact in contacts:
                nursery.start_soon(contained, ask, contact)

    async def _identify_all(self) -> None:
        async with trio.open_nursery() as nursery:
            async for caller in self._callers:
                nursery.start_soon(self._identify_one, caller)

    async def _identify_one(self, caller: Caller) -> None:
        try:
            await contained(self._identify, caller)
        finally:
            self._asked[caller.place] -= 1
            if not self._asked[caller.place]:
                del self._asked[caller.place]

    async def _identify(self, caller: Caller) -> None:
        try:
            identified = await self._peers.identify(caller.peer_id, (), within=_IDENTIFYING)
        except RequestError:
            self._seen.pop(caller.peer_id, None)
            return
        if self._network.protocol in identified.protocols:
            scope = farthest(address_bytes([caller.address]))
            addresses = within_reach(address_bytes(identified.addresses), scope)
            if addresses:
                self._network.answered(Contact(id_bytes(caller.peer_id), addresses))
