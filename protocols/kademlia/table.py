"""The routing table: whom we know, many near us and few far away (libp2p specs, kad-dht, "Kademlia routing table").

A bucket for each length of the prefix that a peer's position shares with ours holds up to twenty peers. Who is in it
stays while it answers: peers that have lasted go on lasting, and a flood of new ones pushes nobody out. A peer that has
failed gives way to the next newcomer, and goes when it has failed three times running.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from peertunnel.protocols.kademlia.distance import BITS, position, shared_bits
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact, K

MAX_FAILURES = 3  # in a row; one may be our own network's fault
# Peers of one network in a bucket, or of those that tell only names; as in go-libp2p-kad-dht's and py-libp2p's filters.
MAX_PER_GROUP = 2


@dataclass(slots=True)
class _Entry:
    contact: Contact
    position: int
    groups: frozenset[str]
    heard: float  # when it last answered, seconds
    failures: int = 0


class Table:
    """Knows peers that have answered; times are seconds of one clock that the caller keeps.

    Args:
        own_id: our own peer id as bytes, which is never entered.
    """

    def __init__(self, own_id: bytes) -> None:
        self._own_id = own_id
        self._own = position(own_id)
        self._buckets: dict[int, dict[bytes, _Entry]] = {}

    def __len__(self) -> int:
        """Give how many peers are known."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def __contains__(self, peer_id: bytes) -> bool:
        """Tell whether a peer is known."""
        return self._entry(peer_id) is not None

    def __iter__(self) -> Iterator[Contact]:
        """Give all peers."""
        return (entry.contact for entry in self._entries())

    def addresses(self, peer_id: bytes) -> tuple[bytes, ...]:
        """Give the addresses of a peer that is known, none for another."""
        return () if (entry := self._entry(peer_id)) is None else entry.contact.addresses

    def answered(self, contact: Contact, groups: Iterable[str], now: float) -> bool:
        """Note that a peer has answered, and enter it if there is room.

        Args:
            contact: the peer; addresses are added to those that were known, the latest first.
            groups: the networks that it is in, of which none may fill a bucket; none for one that needs no such limit.

        Returns:
            Whether it is in the table now.
        """
        if contact.peer_id == self._own_id:
            return False
        if (known := self._entry(contact.peer_id)) is not None:
            addresses = dict.fromkeys(contact.addresses + known.contact.addresses)
            known.contact = replace(contact, addresses=tuple(addresses)[:MAX_ADDRESSES])
            known.heard, known.failures = now, 0
            return True
        entry = _Entry(contact, position(contact.peer_id), frozenset(groups), now)
        bucket = self._buckets.setdefault(shared_bits(entry.position, self._own), {})
        if not _make_room(bucket, entry):
            return False
        bucket[contact.peer_id] = entry
        return True

    def failed(self, peer_id: bytes) -> None:
        """Note that a peer has not answered."""
        if (entry := self._entry(peer_id)) is not None:
            entry.failures += 1
            if entry.failures >= MAX_FAILURES:
                self.remove(peer_id)

    def remove(self, peer_id: bytes) -> None:
        """Forget a peer."""
        self._bucket(peer_id).pop(peer_id, None)

    def closest(self, key: bytes, count: int = K, *, alive: bool = False) -> list[Contact]:
        """Give the peers nearest to a key, the nearest first; those that failed last time come after all others.

        Args:
            alive: leave out the ones that failed.
        """
        target = position(key)
        entries = (entry for entry in self._entries() if not (alive and entry.failures))
        nearest = heapq.nsmallest(
            count, entries, key=lambda entry: (entry.failures > 0, entry.position ^ target)
        )
        return [entry.contact for entry in nearest]

    def silent(self, since: float) -> list[Contact]:
        """Give the peers that have not answered since a moment, or failed when last asked."""
        return [entry.contact for entry in self._entries() if entry.heard < since or entry.failures]

    @property
    def is_alive(self) -> bool:
        """Whether there is anybody who did not fail last time."""
        return any(not entry.failures for entry in self._entries())

    def _entries(self) -> Iterator[_Entry]:
        return (entry for bucket in self._buckets.values() for entry in bucket.values())

    def _bucket(self, peer_id: bytes) -> dict[bytes, _Entry]:
        bits = shared_bits(position(peer_id), self._own)
        return self._buckets.get(min(bits, BITS - 1), {})

    def _entry(self, peer_id: bytes) -> _Entry | None:
        return self._bucket(peer_id).get(peer_id)


def _make_room(bucket: dict[bytes, _Entry], newcomer: _Entry) -> bool:
    """Let the newcomer in, at the cost of one that failed if need be."""
    population = Counter(group for entry in bucket.values() for group in entry.groups)
    crowded = {group for group in newcomer.groups if population[group] >= MAX_PER_GROUP}
    if not crowded and len(bucket) < K:
        return True
    failed = (peer_id for peer_id, entry in bucket.items() if entry.failures and crowded <= entry.groups)
    if (loser := next(failed, None)) is None:
        return False
    del bucket[loser]
    return True
