"""Provider records of our own: at the nodes closest to each key, and renewed there."""

import time

import trio

from peertunnel.discovery import Announcement
from peertunnel.discovery.dht_contacts import address_bytes
from peertunnel.discovery.dht_network import Network
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact, K, Message, Type
from peertunnel.protocols.kademlia.places import farthest, within_reach
from peertunnel.protocols.topic import dht_key

_LOOK = 2.0  # seconds between looks at what we announce
_RENEW = 1800.0  # seconds; the records hold for two days, but nodes nearer to the key come and go
_FILL = 60.0  # seconds until the next try when fewer than twenty nodes took the record
_AGAIN = 1.0  # seconds until the next try when none did
_MAX_TELLING = 10  # nodes that are told at a time


class Publisher:
    """Announces one provider until cancelled.

    Args:
        network: whom to tell.
        announcement: what to tell.
    """

    def __init__(self, network: Network, announcement: Announcement) -> None:
        self._network = network
        self._announcement = announcement
        self._due: dict[bytes, float] = {}  # by the clock of the day, since records age while we sleep
        self._addresses: tuple[bytes, ...] = ()

    @property
    def keys(self) -> list[bytes]:
        """The keys to announce now; a provider that goes by its peer id only is found under that."""
        names = self._announcement.topics() or (self._network.own_id,)
        return [dht_key(name) for name in names]

    @property
    def contact(self) -> Contact:
        """Ourselves, as we may be reached now."""
        return Contact(self._network.own_id, address_bytes(self._announcement.addresses())[:MAX_ADDRESSES])

    async def run(self) -> None:
        """Announce what is new or to be renewed, for ever."""
        while True:
            await self._network.known()
            contact, keys = self.contact, self.keys
            if contact.addresses != self._addresses:
                self._addresses = contact.addresses
                self._due.clear()
            self._due = {key: self._due.get(key, float("-inf")) for key in keys}
            now = time.time()
            due = [
                key for key in keys if not now < self._due[key] <= now + _RENEW
            ]  # the clock may be put back
            if contact.addresses:
                async with trio.open_nursery() as nursery:
                    for key in due:
                        nursery.start_soon(self._publish, key, contact)
            await trio.sleep(_LOOK)

    async def _publish(self, key: bytes, contact: Contact) -> None:
        closest = await self._network.find_node(key)
        limiter = trio.CapacityLimiter(_MAX_TELLING)
        taken: list[bytes] = []

        async def tell(node: Contact) -> None:
            """Tell a node of the addresses that it would tell others."""
            addresses = within_reach(contact.addresses, farthest(node.addresses))
            record = Message(Type.ADD_PROVIDER, key, providers=(Contact(contact.peer_id, addresses),))
            async with limiter:
                if addresses and await self._network.tell(node, record):
                    taken.append(node.peer_id)

        async with trio.open_nursery() as nursery:
            for node in closest:
                nursery.start_soon(tell, node)
        pause = _RENEW if len(taken) >= K else _FILL if taken else _AGAIN
        self._due[key] = time.time() + pause
