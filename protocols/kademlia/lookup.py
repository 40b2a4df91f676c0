"""An iterative lookup: ask the peers nearest to a key for nearer ones, until nobody knows any (specs, kad-dht).

Ten are asked at a time. Who has not answered after a second and a half is slow: somebody else is asked in its place,
but an answer that comes late still counts. The lookup is over when each of the twenty nearest known peers has answered,
apart from those that failed or are slow; when fewer have, slow ones get five seconds.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from peertunnel.protocols.kademlia.distance import position
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact, K

ALPHA = 10  # peers asked at a time; go-libp2p-kad-dht's, the specification's is a minimum
SLOW = 1.5  # seconds: a dial across the world with its handshakes takes one
LATE = 5.0  # seconds after which a slow peer is not waited for
MAX_WAITING = 3 * ALPHA  # requests under way, slow ones included
MAX_ASKED = 160  # requests in all; an honest lookup among ten million peers takes about fifty
MAX_KNOWN = 512  # peers under consideration, the nearest ones
MAX_TRIES = 3  # requests to one peer, each at addresses that were not known before


class _State(Enum):
    KNOWN = auto()
    WAITING = auto()
    SLOW = auto()
    ANSWERED = auto()
    FAILED = auto()


_PATIENCE = {_State.WAITING: SLOW, _State.SLOW: LATE}


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    distance: int
    state: _State = _State.KNOWN
    asked: float = 0.0  # when, in seconds
    is_running: bool = False  # the request, which may go on when the peer counts as failed
    tries: int = 0
    tried: set[bytes] = field(default_factory=set)  # addresses


class Lookup:
    """One lookup; times are seconds of one clock that the caller keeps.

    Args:
        own_id: our own peer id as bytes, which is never asked.
        key: what is looked for.
        seeds: whom to ask first.
    """

    def __init__(self, own_id: bytes, key: bytes, seeds: Iterable[Contact]) -> None:
        self._own_id = own_id
        self._target = position(key)
        self._candidates: dict[bytes, _Candidate] = {}
        self._asked = 0
        self._learn(seeds)

    @property
    def is_done(self) -> bool:
        """Whether nobody is left to be asked or worth waiting for."""
        states = Counter(candidate.state for candidate in self._candidates.values())
        if states[_State.SLOW] and states[_State.ANSWERED] < K:
            return False
        return not self._next() and not any(c.state is _State.WAITING for c in self._nearest())

    def outgoing(self, now: float) -> list[Contact]:
        """Give the peers to be asked now; each is answered for by `receive` or `failed`."""
        chosen = self._next()
        for candidate in chosen:
            candidate.state, candidate.asked, candidate.is_running = _State.WAITING, now, True
            candidate.tries += 1
            candidate.tried.update(candidate.contact.addresses)
        self._asked += len(chosen)
        return [candidate.contact for candidate in chosen]

    def receive(self, peer_id: bytes, closer: Iterable[Contact]) -> None:
        """Take the answer of a peer that was asked: the peers that it knows to be closer."""
        candidate = self._candidates[peer_id]
        candidate.state, candidate.is_running = _State.ANSWERED, False
        self._learn(list(closer)[:K])

    def failed(self, peer_id: bytes) -> None:
        """Note that a peer that was asked will not answer."""
        candidate = self._candidates[peer_id]
        candidate.is_running = False
        if candidate.state is not _State.ANSWERED:
            candidate.state = _State.FAILED
            self._retry(candidate)

    def deadline(self) -> float:
        """Give when `tick` is due, infinity for never."""
        return min((c.asked + _PATIENCE[c.state] for c in self._under_way()), default=float("inf"))

    def tick(self, now: float) -> None:
        """Note which peers have become slow, or too late."""
        for candidate in list(self._under_way()):
            if candidate.asked + LATE <= now:
                candidate.state = _State.FAILED
            elif candidate.asked + SLOW <= now:
                candidate.state = _State.SLOW

    def closest(self) -> list[Contact]:
        """Give the nearest peers that have answered, the nearest first, twenty at most."""
        answered = (c for c in self._candidates.values() if c.state is _State.ANSWERED)
        return [c.contact for c in heapq.nsmallest(K, answered, key=lambda c: c.distance)]

    def _under_way(self) -> Iterator[_Candidate]:
        return (c for c in self._candidates.values() if c.state in _PATIENCE)

    def _nearest(self) -> list[_Candidate]:
        """Give the nearest candidates that have answered, or still may in time."""
        hopeful = (c for c in self._candidates.values() if c.state not in (_State.FAILED, _State.SLOW))
        return heapq.nsmallest(K, hopeful, key=lambda c: c.distance)

    def _next(self) -> list[_Candidate]:
        states = [candidate.state for candidate in self._candidates.values()]
        waiting, slow = states.count(_State.WAITING), states.count(_State.SLOW)
        room = min(ALPHA - waiting, MAX_WAITING - waiting - slow, MAX_ASKED - self._asked)
        return [c for c in self._nearest() if c.state is _State.KNOWN][: max(0, room)]

    def _learn(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.peer_id == self._own_id:
                continue
            known = self._candidates.get(contact.peer_id)
            if known is None:
                distance = position(contact.peer_id) ^ self._target
                self._candidates[contact.peer_id] = _Candidate(contact, distance)
            elif new := [a for a in contact.addresses if a not in known.contact.addresses]:
                # The latest first: whoever told of many wrong ones before can't hide the right ones.
                addresses = (*new, *known.contact.addresses)[:MAX_ADDRESSES]
                known.contact = Contact(contact.peer_id, addresses, known.contact.connection)
                self._retry(known)
        if len(self._candidates) > MAX_KNOWN:
            self._forget_farthest()

    def _retry(self, candidate: _Candidate) -> None:
        """Give a peer that failed another chance at addresses that were told since.

        But not while it is being asked: whoever is only KNOWN may be forgotten, and an answer would find nobody.
        """
        if candidate.is_running:
            return
        is_new = any(address not in candidate.tried for address in candidate.contact.addresses)
        if candidate.state is _State.FAILED and is_new and candidate.tries < MAX_TRIES:
            candidate.state = _State.KNOWN

    def _forget_farthest(self) -> None:
        unasked = [peer_id for peer_id, c in self._candidates.items() if c.state is _State.KNOWN]
        unasked.sort(key=lambda peer_id: self._candidates[peer_id].distance)
        excess = len(self._candidates) - MAX_KNOWN
        for peer_id in unasked[-excess:]:
            del self._candidates[peer_id]
