"""Provider records that we hold for others: bounded, and fair when somebody floods them (libp2p specs, kad-dht).

Whoever wants to be rid of a record can announce as many peers as it likes, since ids are free. Networks are not: when
a key has too many records, one of the network with most of them goes, and of those the one in the middle of their age.
So what stood before a flood stays, and what comes during it has its turn, too.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import islice

from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact

EXPIRY = 48 * 3600.0  # seconds that a record holds; the specification's
ADDRESS_EXPIRY = 24 * 3600.0  # seconds that its addresses hold; as in go-libp2p-kad-dht
MAX_PER_KEY = 128  # records; about as many, with a few addresses each, as rust-libp2p takes in an answer
MAX_RECORDS = 16384  # in all; some 16 MiB


@dataclass(frozen=True, slots=True)
class _Record:
    contact: Contact
    group: Hashable
    renewed: float  # seconds


class Providers:
    """Who provides what; times are seconds of one clock that the caller keeps."""

    def __init__(self) -> None:
        # Records stand in the order in which they first came, also when they are renewed.
        self._keys: dict[bytes, dict[bytes, _Record]] = {}
        self._groups: dict[Hashable, dict[tuple[bytes, bytes], None]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Give how many records take up room, whether or not all still hold."""
        return self._count

    def add(self, key: bytes, contact: Contact, group: Hashable, now: float) -> None:
        """Enter or renew a record.

        Args:
            key: what is provided.
            contact: the provider itself, which has said so.
            group: the network that it said so from.
        """
        contact = Contact(contact.peer_id, contact.addresses[:MAX_ADDRESSES])
        known = self._keys.get(key, {}).get(contact.peer_id)
        record = _Record(contact, known.group if known else group, now)
        self._keys.setdefault(key, {})[contact.peer_id] = record
        if known is None:
            self._groups.setdefault(group, {})[key, contact.peer_id] = None
            self._count += 1
            self._make_room(key, now)

    def remove(self, key: bytes, peer_id: bytes) -> None:
        """Forget a record, if it is there."""
        if (record := self._keys.get(key, {}).pop(peer_id, None)) is None:
            return
        self._count -= 1
        if not self._keys[key]:
            del self._keys[key]
        del self._groups[record.group][key, peer_id]
        if not self._groups[record.group]:
            del self._groups[record.group]

    def of(self, key: bytes, now: float) -> list[Contact]:
        """Give the providers of a key, those whose addresses are out of date without any."""
        self._expire(key, now)
        return [
            record.contact if record.renewed + ADDRESS_EXPIRY > now else Contact(record.contact.peer_id)
            for record in self._keys.get(key, {}).values()
        ]

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        for key in list(self._keys):
            self._expire(key, now)

    def _expire(self, key: bytes, now: float) -> None:
        for peer_id, record in list(self._keys.get(key, {}).items()):
            if record.renewed + EXPIRY <= now:
                self.remove(key, peer_id)

    def _make_room(self, key: bytes, now: float) -> None:
        if len(self._keys[key]) > MAX_PER_KEY:
            self._expire(key, now)
        if len(records := self._keys[key]) > MAX_PER_KEY:
            largest = _most_common(record.group for record in records.values())
            self.remove(key, _middle(peer_id for peer_id, r in records.items() if r.group == largest))
        if self._count > MAX_RECORDS:
            crowd = max(reversed(self._groups.values()), key=len)
            self.remove(*next(islice(crowd, len(crowd) // 2, None)))


def _most_common(groups: Iterable[Hashable]) -> Hashable:
    """Give the group that is there most often; among equals, the one that came last."""
    counts = Counter(groups)
    return max(reversed(counts), key=lambda group: counts[group])


def _middle(peer_ids: Iterable[bytes]) -> bytes:
    found = list(peer_ids)
    return found[len(found) // 2]
