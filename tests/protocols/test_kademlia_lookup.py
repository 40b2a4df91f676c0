"""Lookups in networks that are drawn at random: they end, find the nearest, and are held up by nobody."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.kademlia.distance import position
from peertunnel.protocols.kademlia.lookup import (
    ALPHA,
    LATE,
    MAX_ASKED,
    MAX_KNOWN,
    MAX_TRIES,
    MAX_WAITING,
    SLOW,
    Lookup,
)
from peertunnel.protocols.kademlia.messages import Contact, K

OWN, KEY = b"us", b"key"


def peer(number: int, *addresses: bytes) -> Contact:
    return Contact(number.to_bytes(4), addresses or (b"somewhere",))


def nearest(contacts: list[Contact], count: int = K) -> list[Contact]:
    return sorted(contacts, key=lambda contact: position(contact.peer_id) ^ position(KEY))[:count]


class Network:
    """Peers with tables of their own: the nearest to themselves, and some others."""

    def __init__(self, size: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.peers = [peer(number) for number in range(size)]
        self._tables = {contact.peer_id: self._table(contact) for contact in self.peers}

    def _table(self, contact: Contact) -> list[Contact]:
        own = position(contact.peer_id)
        others = [other for other in self.peers if other != contact]
        near = sorted(others, key=lambda other: position(other.peer_id) ^ own)[:K]
        return list(dict.fromkeys(near + self.random.sample(others, min(len(others), K))))

    def closer(self, contact: Contact) -> list[Contact]:
        return nearest(self._tables[contact.peer_id])

    def run(self, lookup: Lookup, dead: set[bytes], hanging: set[bytes]) -> float:
        """Let a lookup run to its end; give how long it took when an answer takes 0.1 seconds."""
        now, answers = 0.0, list[tuple[float, Contact]]()
        while not lookup.is_done:
            for contact in lookup.outgoing(now):
                if contact.peer_id not in hanging:
                    answers.append((now + self.random.uniform(0.05, 0.15), contact))
            answers.sort(key=lambda answer: answer[0])
            if answers and answers[0][0] <= lookup.deadline():
                now, contact = answers.pop(0)
                if contact.peer_id in dead:
                    lookup.failed(contact.peer_id)
                else:
                    lookup.receive(contact.peer_id, self.closer(contact))
            else:
                now = lookup.deadline()
            lookup.tick(now)
        return now


@given(st.integers(1, 150), st.integers(0, 2**32))
def test_the_nearest_of_all_are_found(size: int, seed: int) -> None:
    network = Network(size, seed)
    lookup = Lookup(OWN, KEY, network.peers[:1])
    assert network.run(lookup, set(), set()) < 3
    assert lookup.closest() == nearest(network.peers)


def past_the_gone(size: int, seed: int) -> tuple[list[Contact], list[Contact], list[Contact]]:
    """Look up where a third is dead or hangs; give who was found, whom those know, and who is alive."""
    network = Network(size, seed)
    gone = network.random.sample([p.peer_id for p in network.peers[K:]], size * 3 // 10)
    lookup = Lookup(OWN, KEY, network.peers[:K])
    assert network.run(lookup, set(gone[::2]), set(gone[1::2])) < 3 * SLOW + LATE
    alive = [contact for contact in network.peers if contact.peer_id not in gone]
    found = lookup.closest()
    known = {*found, *(told for contact in found for told in network.closer(contact))}
    return found, [contact for contact in alive if contact in known], alive


@given(st.integers(40, 150), st.integers(0, 2**32))
def test_a_third_may_be_dead_or_hang(size: int, seed: int) -> None:
    """Nobody who was found knows a nearer one that is alive; whom the dead alone know can't be found."""
    found, known, _ = past_the_gone(size, seed)
    assert found == nearest(known)


def test_hardly_ever_is_one_known_to_the_dead_alone() -> None:
    """Chance makes the tables, so a fixed one."""
    runs = [past_the_gone(40 + size, seed=size) for size in range(50)]
    assert sum(found == nearest(alive) for found, _, alive in runs) >= 45


def test_ten_are_asked_at_a_time() -> None:
    lookup = Lookup(OWN, KEY, [peer(number) for number in range(100)])
    asked = lookup.outgoing(0)
    assert asked == nearest([peer(number) for number in range(100)], ALPHA)
    assert lookup.outgoing(0) == []
    lookup.receive(asked[0].peer_id, ())
    assert len(lookup.outgoing(0)) == 1


def test_slow_ones_make_room_but_only_so_much() -> None:
    lookup = Lookup(OWN, KEY, [peer(number) for number in range(100)])
    waiting = lookup.outgoing(0)
    assert lookup.deadline() == SLOW
    for turn in range(1, 3):
        lookup.tick(turn * SLOW)
        waiting += lookup.outgoing(turn * SLOW)
    assert len(waiting) == MAX_WAITING
    lookup.tick(3 * SLOW)
    assert lookup.outgoing(3 * SLOW) == []
    assert not lookup.is_done
    assert lookup.deadline() == LATE
    lookup.tick(LATE)
    assert len(lookup.outgoing(LATE)) == ALPHA


def test_an_answer_that_comes_late_still_counts() -> None:
    lookup = Lookup(OWN, KEY, [peer(1)])
    lookup.outgoing(0)
    lookup.tick(SLOW)
    assert not lookup.is_done
    lookup.receive(peer(1).peer_id, [peer(2)])
    assert lookup.closest() == [peer(1)]
    assert lookup.outgoing(SLOW) == [peer(2)]
    lookup.tick(SLOW + LATE)
    assert lookup.is_done
    lookup.receive(peer(2).peer_id, ())
    assert set(lookup.closest()) == {peer(1), peer(2)}


def test_nobody_is_asked_when_nobody_is_known() -> None:
    lookup = Lookup(OWN, KEY, [Contact(OWN, (b"here",))])
    assert lookup.is_done
    assert lookup.outgoing(0) == []
    assert lookup.deadline() == float("inf")


def test_only_twenty_of_an_answer_count() -> None:
    lookup = Lookup(OWN, KEY, [peer(0)])
    lookup.outgoing(0)
    lookup.receive(peer(0).peer_id, [peer(number) for number in range(1, 100)])
    lookup.outgoing(0)
    for contact in nearest([peer(number) for number in range(1, K + 1)]):
        lookup.receive(contact.peer_id, ())
        assert all(int.from_bytes(c.peer_id) <= K for c in lookup.outgoing(0))
    assert lookup.is_done


@pytest.mark.parametrize("answers", [True, False])
def test_a_liar_cannot_keep_a_lookup_busy_for_ever(answers: bool) -> None:
    """Each of the liar's peers names twenty others that nobody has heard of."""
    lookup, asked, number = Lookup(OWN, KEY, [peer(0)]), 0, 0
    while not lookup.is_done:
        for contact in lookup.outgoing(0):
            asked += 1
            if answers or asked == 1:
                lookup.receive(contact.peer_id, [peer(number + more) for more in range(1, K + 1)])
                number += K
            else:
                lookup.failed(contact.peer_id)
    assert asked <= MAX_ASKED
    assert len(lookup.closest()) <= K
    assert len(lookup._candidates) <= MAX_KNOWN


def test_wrong_addresses_do_not_hide_the_right_ones() -> None:
    lookup = Lookup(OWN, KEY, [peer(1, b"wrong"), peer(2), peer(3)])
    lookup.outgoing(0)
    lookup.failed(peer(1).peer_id)
    lookup.receive(peer(2).peer_id, [peer(1, b"wrong")])
    assert lookup.outgoing(0) == []
    lookup.receive(peer(3).peer_id, [peer(1, b"right")])
    assert lookup.outgoing(0) == [peer(1, b"right", b"wrong")]
    lookup.receive(peer(1).peer_id, ())
    assert lookup.is_done


def test_a_peer_is_tried_at_ever_new_addresses_only_so_often() -> None:
    lookup = Lookup(OWN, KEY, [peer(1), *(peer(number) for number in range(2, 10))])
    tries = sum(contact == peer(1) for contact in lookup.outgoing(0))
    for number in range(2, 10):
        lookup.failed(peer(1).peer_id)
        lookup.receive(peer(number).peer_id, [peer(1, bytes([number]))])
        tries += len(lookup.outgoing(0))
    assert tries == MAX_TRIES


def test_who_is_still_being_asked_is_not_forgotten() -> None:
    *near, far = nearest([peer(number) for number in range(MAX_KNOWN + K)], MAX_KNOWN + K)
    lookup = Lookup(OWN, KEY, [far, *near[-2:]])
    lookup.outgoing(0)
    lookup.tick(LATE)
    lookup.receive(near[-1].peer_id, [Contact(far.peer_id, (b"elsewhere",))])
    lookup._learn(near)
    lookup.failed(far.peer_id)
    assert len(lookup._candidates) == MAX_KNOWN


def test_who_was_late_is_asked_at_new_addresses_once_its_request_is_over() -> None:
    lookup = Lookup(OWN, KEY, [peer(1), peer(2)])
    lookup.outgoing(0)
    lookup.tick(LATE)
    lookup.receive(peer(2).peer_id, [peer(1, b"elsewhere")])
    assert lookup.outgoing(LATE) == []
    lookup.failed(peer(1).peer_id)
    assert lookup.outgoing(LATE) == [peer(1, b"elsewhere", b"somewhere")]
