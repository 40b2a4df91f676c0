"""The routing table: near peers and far ones, kept while they answer, and no network in a bucket's majority."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from peertunnel.protocols.kademlia.distance import position, shared_bits
from peertunnel.protocols.kademlia.messages import Contact, K
from peertunnel.protocols.kademlia.places import NAMED, groups_of
from peertunnel.protocols.kademlia.table import MAX_FAILURES, MAX_PER_GROUP, Table

OWN = b"us"


def peer(number: int) -> Contact:
    return Contact(number.to_bytes(4), (b"somewhere",))


def in_bucket(bits: int, count: int) -> list[Contact]:
    """Give peers of one bucket."""
    own, found, number = position(OWN), list[Contact](), 0
    while len(found) < count:
        contact = peer(number := number + 1)
        if shared_bits(position(contact.peer_id), own) == bits:
            found.append(contact)
    return found


def test_positions_are_sha_256_of_what_is_on_the_wire() -> None:
    # sha256 of nothing, as FIPS 180-4's examples give it
    assert position(b"").to_bytes(32).hex().startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert shared_bits(0, 0) == 256
    assert shared_bits(0, 1 << 255) == 0
    assert shared_bits(0, 1) == 255


def test_a_key_is_where_go_puts_it() -> None:
    # Of go-libp2p-kad-dht's tests: kbucket.ConvertKey is SHA-256, so the XOR of two is that of two digests.
    one, other = position(b"a"), position(b"b")
    assert one ^ other == other ^ one != 0


@given(st.sets(st.integers(0, 10_000), max_size=200), st.binary(max_size=8), st.integers(0, 30))
def test_the_closest_are_the_closest_of_those_known(numbers: set[int], key: bytes, count: int) -> None:
    table = Table(OWN)
    known = [peer(n) for n in sorted(numbers) if table.answered(peer(n), (), 0)]
    assert len(table) == len(known)
    assert set(table) == set(known)
    by_distance = sorted(known, key=lambda contact: position(contact.peer_id) ^ position(key))
    assert table.closest(key, count) == by_distance[:count]


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["", "a", "b", "c"]), st.booleans())))
def test_buckets_stay_within_their_limits(steps: list[tuple[int, str, bool]]) -> None:
    table, groups = Table(OWN), dict[bytes, str]()
    for number, group, works in steps:
        contact = peer(number)
        if not works:
            table.failed(contact.peer_id)
        elif contact.peer_id not in table and table.answered(contact, {group} - {""}, 0):
            groups[contact.peer_id] = group
    buckets = Counter(shared_bits(position(c.peer_id), position(OWN)) for c in table)
    assert max(buckets.values(), default=0) <= K
    crowds = Counter(
        (shared_bits(position(c.peer_id), position(OWN)), groups[c.peer_id])
        for c in table
        if groups[c.peer_id]
    )
    assert max(crowds.values(), default=0) <= MAX_PER_GROUP


def test_we_are_not_in_our_own_table() -> None:
    table = Table(OWN)
    assert not table.answered(Contact(OWN), (), 0)
    assert len(table) == 0


def test_who_answers_stays_and_newcomers_wait() -> None:
    table = Table(OWN)
    *first, late = in_bucket(0, K + 1)
    assert all(table.answered(contact, (), 0) for contact in first)
    assert not table.answered(late, (), 1)
    assert late.peer_id not in table


def test_who_failed_gives_way_to_a_newcomer() -> None:
    table = Table(OWN)
    *first, late = in_bucket(0, K + 1)
    for contact in first:
        table.answered(contact, (), 0)
    table.failed(first[7].peer_id)
    assert table.answered(late, (), 1)
    assert first[7].peer_id not in table
    assert len(table) == K


def test_who_fails_again_and_again_goes() -> None:
    table = Table(OWN)
    table.answered(peer(1), (), 0)
    for _ in range(MAX_FAILURES - 1):
        table.failed(peer(1).peer_id)
    assert not table.is_alive
    assert peer(1).peer_id in table
    table.answered(peer(1), (), 1)
    assert table.is_alive
    for _ in range(MAX_FAILURES):
        table.failed(peer(1).peer_id)
    assert len(table) == 0
    table.failed(peer(1).peer_id)


def test_who_failed_comes_last_and_is_not_told_of() -> None:
    table = Table(OWN)
    for number in range(3):
        table.answered(peer(number), (), 0)
    nearest, *rest = table.closest(b"key")
    table.failed(nearest.peer_id)
    assert table.closest(b"key") == [*rest, nearest]
    assert table.closest(b"key", alive=True) == rest


def test_no_network_fills_a_bucket() -> None:
    table = Table(OWN)
    peers = in_bucket(0, K)
    taken = [table.answered(contact, {"192.0.2.0/24"}, 0) for contact in peers]
    assert taken.count(True) == MAX_PER_GROUP
    assert table.answered(peers[-1], {"198.51.100.0/24"}, 0)
    assert not table.answered(peers[-2], {"192.0.2.0/24", "203.0.113.0/24"}, 0)
    table.failed(peers[0].peer_id)
    assert table.answered(peers[-2], {"192.0.2.0/24"}, 0)
    assert peers[0].peer_id not in table


@pytest.mark.parametrize(
    "address", ["/dns/{}.example/tcp/1", "/dns4/{}.example/tcp/1", "/ip4/8.8.8.8/tcp/{}"]
)
def test_nor_do_peers_that_tell_only_names(address: str) -> None:
    table = Table(OWN)
    for number, contact in enumerate(in_bucket(0, K)):
        told = Multiaddr(address.format(number + 1)).to_bytes()
        table.answered(contact, groups_of([told]), 0)
    assert len(table) == MAX_PER_GROUP


@pytest.mark.parametrize(
    ("addresses", "groups"),
    [
        (["/dns4/a.example/tcp/1", "/dns6/b.example/tcp/1"], {NAMED}),
        (["/dnsaddr/a.example", "/ip4/192.168.1.1/tcp/1"], {NAMED}),
        (["/dns4/a.example/tcp/1", "/ip4/8.8.8.8/tcp/1"], {"8.8.8.0/24"}),
        (["/ip4/8.8.8.8/tcp/1", "/ip6/2600:1:2:3::1/tcp/1"], {"8.8.8.0/24", "2600:1:2::/48"}),
        (["/ip4/192.168.1.1/tcp/1", "/ip6/::1/tcp/1"], set()),
        ([], set()),
    ],
)
def test_a_peers_groups_are_its_public_networks_or_that_of_names(
    addresses: list[str], groups: set[str]
) -> None:
    assert groups_of(Multiaddr(address).to_bytes() for address in addresses) == groups


def test_addresses_are_added_the_latest_first() -> None:
    table = Table(OWN)
    table.answered(Contact(b"p", (b"old", b"same")), (), 0)
    table.answered(Contact(b"p", (b"same", b"new")), (), 1)
    assert list(table) == [Contact(b"p", (b"same", b"new", b"old"))]


def test_the_silent_are_those_that_failed_or_were_not_heard_of() -> None:
    table = Table(OWN)
    for number, heard in enumerate([10.0, 20.0, 30.0]):
        table.answered(peer(number), (), heard)
    table.failed(peer(2).peer_id)
    assert table.silent(since=20) == [peer(0), peer(2)]
