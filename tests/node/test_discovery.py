"""What peers tell of themselves, what we keep of it, and the addresses that the user gives."""

import hashlib
import ipaddress
import itertools
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.given import Given
from peertunnel.discovery.mdns_cache import MAX_PEERS, MAX_TTL, Neighbour, Neighbours
from peertunnel.discovery.mdns_link import MAX_LINKS, links, open_link
from peertunnel.discovery.mdns_peer import MAX_ADDRESSES, Sighting, encode_peer, sightings, tag
from peertunnel.discovery.mdns_wire import SERVICE, Message, Pointer, Text, decode
from peertunnel.interfaces import InterfaceAddress, interface_addresses
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.service import Service

LABEL = b"a" * 32
PEER, OTHER = ed25519_peer_id(b"p" * 32), ed25519_peer_id(b"o" * 32)
TAG = tag(b"topic")


def address(host: int, peer_id: str = PEER) -> str:
    return f"/ip4/192.0.2.{host}/tcp/4001/p2p/{peer_id}"


def told(*addresses: str, tags: tuple[str, ...] = (TAG,), ttl: int = 120) -> list[Sighting]:
    messages = encode_peer(LABEL, addresses, tags, ttl)
    return list(itertools.chain(*(sightings(decode(message)) for message in messages)))


def test_a_tag_is_half_of_a_hash() -> None:
    assert tag(b"topic") == hashlib.sha256(b"topic").hexdigest()[:32]


def test_a_peer_reads_back() -> None:
    assert told(address(1), address(2)) == [
        Sighting((LABEL + b"0", *SERVICE), PEER, (address(1), address(2)), frozenset([TAG]), 120)
    ]


def test_the_topic_itself_is_never_told() -> None:
    (message,) = encode_peer(LABEL, [address(1)], [tag(b"ssh.example")], 120)
    assert b"ssh.example" not in message


def test_many_addresses_go_into_messages_that_fit_a_packet_and_stand_alone() -> None:
    addresses = [f"/ip6/2001:db8::{n:x}/udp/4001/quic-v1/p2p/{PEER}" for n in range(1000, 1040)]
    messages = encode_peer(LABEL + b"n", addresses, (TAG, TAG, TAG), 120)
    seen = [next(sightings(decode(message))) for message in messages]
    assert max(map(len, messages)) <= 1200
    assert [address for sighting in seen for address in sighting.addresses] == addresses
    assert len({sighting.name for sighting in seen}) == len(seen) == len(messages) > 3
    assert all(sighting.tags == {TAG} for sighting in seen)


@pytest.mark.parametrize(
    "useless",
    [
        f"/dns4/example.org/tcp/1/p2p/{PEER}",
        f"/ip4/0.0.0.0/tcp/1/p2p/{PEER}",
        f"/ip4/224.0.0.1/udp/1/quic-v1/p2p/{PEER}",
        f"/ip4/192.0.2.9/tcp/1/p2p/{OTHER}/p2p-circuit/p2p/{PEER}",
        f"/ip4/192.0.2.9/tcp/1/{'ws/' * 80}p2p/{PEER}",
    ],
    ids=["a name", "a wildcard", "multicast", "a circuit", "too long for a string"],
)
def test_what_is_no_use_on_a_lan_is_not_told(useless: str) -> None:
    (message,) = encode_peer(LABEL, [useless, address(1), useless], (), 120)
    (text,) = decode(message).texts
    assert text.strings == (dnsaddr(address(1)),)


def test_a_peer_without_addresses_says_nothing() -> None:
    assert encode_peer(LABEL, [], [TAG], 120) == []


def heard(*strings: bytes) -> list[Sighting]:
    """What becomes of strings that another peer tells."""
    name = (b"rust",)
    return list(sightings(Message(True, (), (Pointer(SERVICE, name, 9),), (Text(name, strings, 9),))))


def dnsaddr(text: str) -> bytes:
    return b"dnsaddr=" + text.encode()


def test_what_makes_no_sense_is_passed_over() -> None:
    (sighting,) = heard(
        b"dnsaddr=\xff",
        b"dnsaddr=/ip4/300.0.0.1/tcp/1",
        dnsaddr(f"/dns4/example.org/tcp/1/p2p/{PEER}"),
        dnsaddr(f"/ip4/224.0.0.1/tcp/1/p2p/{PEER}"),
        dnsaddr("/ip4/192.0.2.3/tcp/1"),
        b"pt=short",
        b"txtvers=1",
        b"",
        dnsaddr(address(1)),
        dnsaddr(address(1)),
    )
    assert (sighting.addresses, sighting.tags) == ((address(1),), frozenset())


def test_who_speaks_for_two_peers_is_not_believed() -> None:
    assert heard(dnsaddr(address(1)), dnsaddr(address(1, OTHER))) == []


def test_addresses_are_bounded() -> None:
    (sighting,) = heard(*(dnsaddr(address(n)) for n in range(MAX_ADDRESSES + 9)))
    assert len(sighting.addresses) == MAX_ADDRESSES


def sighting(*hosts: int, name: bytes = b"n", peer_id: str = PEER, ttl: int = 120) -> Sighting:
    addresses = tuple(address(host, peer_id) for host in hosts)
    return Sighting((name, *SERVICE), peer_id, addresses, frozenset([TAG]), ttl)


def known(neighbours: Neighbours, now: float) -> dict[str, set[str]]:
    return {neighbour.peer_id: set(neighbour.addresses) for neighbour in neighbours.known(now)}


def test_the_first_sighting_is_news_and_its_repetition_is_none() -> None:
    neighbours = Neighbours()
    first, is_news = neighbours.hear(sighting(1), "eth0", 0.0)
    assert (first, is_news) == (Neighbour(PEER, (address(1),), frozenset([TAG])), True)
    assert neighbours.hear(sighting(1), "eth0", 5.0) == (first, False)


def test_a_new_address_is_news() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1), "eth0", 0.0)
    after, is_news = neighbours.hear(sighting(1, 2), "eth0", 0.1)
    assert after and is_news and set(after.addresses) == {address(1), address(2)}


def test_a_restart_is_news_even_at_the_same_address() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, name=b"old"), "eth0", 0.0)
    assert neighbours.hear(sighting(1, name=b"new"), "eth0", 5.0)[1]


def test_another_link_with_the_same_view_is_no_news() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1), "eth0", 0.0)
    assert not neighbours.hear(sighting(1), "eth1", 0.0)[1]


def test_after_a_restart_new_addresses_come_first_and_old_ones_go_in_a_second() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, name=b"old"), "eth0", 0.0)
    after, _ = neighbours.hear(sighting(2, name=b"new"), "eth0", 5.0)
    assert after and after.addresses == (address(2), address(1))
    assert known(neighbours, 6.1) == {PEER: {address(2)}}


def test_a_peer_may_tell_its_addresses_in_pieces_again_and_again() -> None:
    neighbours = Neighbours()
    for now in (0.0, 20.0, 40.0):
        for host in (1, 2, 3):
            is_news = neighbours.hear(sighting(host, name=b"%d" % host), "eth0", now)[1]
            assert is_news == (now == 0)
    assert known(neighbours, 50.0) == {PEER: {address(1), address(2), address(3)}}


def test_each_link_keeps_its_own_view() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, name=b"l"), "lo", 0.0)
    neighbours.hear(sighting(2, name=b"n"), "eth0", 5.0)
    assert known(neighbours, 10.0) == {PEER: {address(1), address(2)}}
    neighbours.drop_link("lo")
    assert known(neighbours, 10.0) == {PEER: {address(2)}}


def test_news_expire() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, ttl=120), "eth0", 0.0)
    assert known(neighbours, 119.0) and not known(neighbours, 121.0)


def test_nobody_is_remembered_for_long() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, ttl=2**32 - 1), "eth0", 0.0)
    assert known(neighbours, MAX_TTL - 1) and not known(neighbours, MAX_TTL + 1)


def test_who_says_goodbye_is_forgotten_at_once_on_every_link() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1), "eth0", 0.0)
    neighbours.hear(sighting(1), "eth1", 0.0)
    assert neighbours.hear(sighting(1, ttl=0), "eth0", 5.0) == (None, False)
    assert known(neighbours, 5.0) == {}
    assert neighbours.hear(sighting(1), "eth0", 6.0)[1]


def test_a_late_goodbye_leaves_the_restarted_peer_alone() -> None:
    neighbours = Neighbours()
    neighbours.hear(sighting(1, name=b"old"), "eth0", 0.0)
    neighbours.hear(sighting(2, name=b"new"), "eth0", 0.1)
    neighbours.hear(sighting(1, name=b"old", ttl=0), "eth0", 0.2)
    assert known(neighbours, 0.2) == {PEER: {address(2)}}


def test_the_cache_is_bounded_and_forgets_whom_it_heard_longest_ago() -> None:
    neighbours = Neighbours()
    peers = [ed25519_peer_id(n.to_bytes(32)) for n in range(MAX_PEERS + 1)]
    for peer_id in peers[:-1]:
        neighbours.hear(sighting(1, peer_id=peer_id), "eth0", 0.0)
    neighbours.hear(sighting(1, peer_id=peers[0]), "eth0", 0.0)
    neighbours.hear(sighting(1, peer_id=peers[-1]), "eth0", 0.0)
    assert set(peers) - known(neighbours, 0.0).keys() == {peers[1]}


def test_goodbyes_of_strangers_leave_nothing_behind() -> None:
    neighbours = Neighbours()
    for n in range(MAX_PEERS + 9):
        neighbours.hear(sighting(1, peer_id=ed25519_peer_id(n.to_bytes(32)), ttl=0), "eth0", 0.0)
    assert len(neighbours) == 0


@pytest.mark.parametrize(("told_at_once", "kept"), [(1, 16), (3, MAX_ADDRESSES)])
def test_one_peer_is_bounded_too(told_at_once: int, kept: int) -> None:
    neighbours = Neighbours()
    for n in range(0, 200, told_at_once):
        after, _ = neighbours.hear(sighting(*range(n, n + told_at_once), name=b"%d" % n), "eth0", 0.0)
    assert after and len(after.addresses) == kept
    assert after.addresses[0] == address(n)


def at(interface: str, index: int, ip: str) -> InterfaceAddress:
    return InterfaceAddress(interface, index, ipaddress.ip_address(ip))


def test_one_socket_for_each_interface_and_ip_version() -> None:
    loopback = [at("lo", 1, "127.0.0.1"), at("lo", 1, "::1")]
    lan = [at("eth0", 2, ip) for ip in ("169.254.1.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1")]
    assert links([*loopback, *lan]) == (loopback[0], lan[1], lan[4])


def test_the_number_of_sockets_is_bounded() -> None:
    assert len(links(at(f"eth{n}", n, f"10.0.0.{n}") for n in range(1, 200))) == MAX_LINKS


def test_a_link_shares_its_port_with_other_services_and_hears_only_itself() -> None:
    (loopback,) = (here for here in interface_addresses() if str(here.ip) == "127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 0))
        with open_link(loopback, other.getsockname()[1]) as link:
            assert link.getsockopt(socket.IPPROTO_IP, 49) == 0  # IP_MULTICAST_ALL


async def test_given_addresses_are_the_candidate() -> None:
    service = Service.from_addresses([address(1), address(2)])
    with Given().find(service) as channel:
        assert [candidate async for candidate in channel] == [
            Candidate(PEER, (address(1), address(2)), "given")
        ]


@pytest.mark.parametrize("service", [Service("id", b"r" * 32), Service("peer", None, PEER)])
async def test_without_addresses_nothing_is_given(service: Service) -> None:
    with Given().find(service) as channel:
        assert [candidate async for candidate in channel] == []


async def test_given_announces_until_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    announcement = Announcement(PEER, lambda: (), lambda: ())
    with trio.move_on_after(9999) as scope:
        await Given().announce(announcement)
    assert scope.cancelled_caught
    await wait_all_tasks_blocked()
