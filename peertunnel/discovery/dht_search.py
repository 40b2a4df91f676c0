"""One search in the DHT: for a service's topics, or for the peer that it is pinned to."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import trio

from peertunnel.boundary import contained
from peertunnel.discovery import Candidate
from peertunnel.discovery.dht_contacts import address_texts, id_bytes, id_text
from peertunnel.discovery.dht_network import Network
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact, Message, Type
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import dht_key

MAX_CANDIDATES = 256  # that wait to be tried; the next round names again what didn't fit
_PER_ANSWER = (
    32  # providers of one answer, drawn anew each time, so that a node that lies can't fill the queue
)
_MAX_TOLD = 4096  # peers that we remember to have named
_MAX_KEPT = 32  # addresses of a peer that the reader keeps, the latest ones
_MAX_COUNTED = 16 * 1024  # addresses of which the answers of a round are counted
_MAX_NAMELESS = 8  # providers without addresses that are looked up after a round
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 15.0  # seconds between rounds, doubling
_LOOK = 15.0  # seconds between looks, while there is nobody to ask, for whether the reader is gone
_LAST_SEEKER_PAUSE = 120.0  # seconds between those of a provider that looks for seekers, as long as it runs


class Search:
    """Looks again and again until the reader is gone.

    Args:
        network: whom to ask.
        held: gives the records of a key that we hold ourselves.
        service: what to look for.
    """

    def __init__(
        self, network: Network, held: Callable[[bytes], Iterable[Contact]], service: Service
    ) -> None:
        self._send, self.channel = trio.open_memory_channel[Candidate](MAX_CANDIDATES)
        self._network = network
        self._held = held
        self._service = service
        self._wanted = id_bytes(service.peer_id) if service.peer_id is not None else None
        self._told: dict[str, frozenset[str]] = {}
        self._without_addresses: dict[bytes, None] = {}
        self._counts: dict[str, Counter[str]] = {}  # in how many answers of this round an address was told
        self._counted = 0  # addresses

    @property
    def is_over(self) -> bool:
        """Whether nobody reads the candidates any more."""
        return self._send.statistics().open_receive_channels == 0

    def close(self) -> None:
        """End the channel."""
        self._send.close()

    async def run(self) -> None:
        """Search until the reader is gone."""
        pause = _FIRST_PAUSE
        while not self.is_over:
            with trio.move_on_after(_LOOK) as patience:
                await self._network.known()
            if patience.cancelled_caught or self.is_over:
                continue
            await contained(self._round)
            await trio.sleep(pause)
            pause = min(2 * pause, _LAST_SEEKER_PAUSE if self._service.seeks_seekers else _LAST_PAUSE)

    async def _round(self) -> None:
        self._without_addresses.clear()
        self._counts.clear()
        self._counted = 0
        keys = [dht_key(topic) for topic in self._service.topics_to_search(time.time())]
        if self._wanted is not None:
            keys.append(dht_key(self._wanted))
        async with trio.open_nursery() as nursery:
            for key in keys:
                self._offer_all(self._held(key))
                nursery.start_soon(
                    self._network.walk, Message(Type.GET_PROVIDERS, key), self._heard_providers
                )
            if self._wanted is not None:
                nursery.start_soon(self._network.find_node, self._wanted, self._heard_closer)
        async with trio.open_nursery() as nursery:
            for peer_id in list(self._without_addresses)[:_MAX_NAMELESS]:
                nursery.start_soon(self._look_up, peer_id)
        self._correct()

    def _heard_providers(self, answer: Message) -> bool:
        self._offer_all(answer.providers)
        return self.is_over

    def _heard_closer(self, answer: Message) -> bool:
        self._offer_all(contact for contact in answer.closer if contact.peer_id == self._wanted)
        return self.is_over

    async def _look_up(self, peer_id: bytes) -> None:
        def heard(answer: Message) -> bool:
            found = [c for c in answer.closer if c.peer_id == peer_id and c.addresses]
            self._offer_all(found)
            return bool(found) or self.is_over

        await self._network.find_node(peer_id, heard)

    def _offer_all(self, contacts: Iterable[Contact]) -> None:
        found = list(contacts)
        for contact in random.sample(found, min(len(found), _PER_ANSWER)):
            self._offer(contact)

    def _offer(self, contact: Contact) -> None:
        peer_id = id_text(contact.peer_id)
        if peer_id is None or contact.peer_id == self._network.own_id:
            return
        if self._wanted not in (None, contact.peer_id):
            return
        if not (addresses := address_texts(contact, peer_id)):
            if peer_id not in self._told:
                self._without_addresses[contact.peer_id] = None
            return
        self._count(peer_id, addresses)
        told = self._told.get(peer_id, frozenset())
        if not told.issuperset(addresses) and self._tell(peer_id, addresses) and len(self._told) < _MAX_TOLD:
            self._told[peer_id] = told | set(addresses)

    def _tell(self, peer_id: str, addresses: tuple[str, ...]) -> bool:
        try:
            self._send.send_nowait(Candidate(peer_id, addresses, "dht"))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the reader is far behind, or gone
        return True

    def _count(self, peer_id: str, addresses: tuple[str, ...]) -> None:
        counts = self._counts.get(peer_id, Counter())
        for address in addresses:
            if address not in counts and self._counted < _MAX_COUNTED:
                self._counted += 1
                counts[address] = 0
            if address in counts:
                counts[address] += 1
        if counts:
            self._counts[peer_id] = counts

    def _correct(self) -> None:
        """Name peers again of whom more addresses were told than the reader keeps, with those that most nodes tell.

        What a node tells of others is signed by nobody: one that makes up new addresses in every answer would have the
        true ones forgotten, which are not told again otherwise.
        """
        for peer_id, counts in self._counts.items():
            if len(self._told.get(peer_id, ())) > _MAX_KEPT:
                addresses = tuple(address for address, _ in counts.most_common(MAX_ADDRESSES))
                if self._tell(peer_id, addresses):
                    self._told[peer_id] = frozenset(addresses)
