"""Which addresses two peers tell each other before they punch, and which of them they try."""

import pytest
from multiaddr import Multiaddr

from peertunnel.protocols.kademlia.places import Scope, scope_of
from peertunnel.transport.candidates import (
    MAX_TARGETS,
    Target,
    offered,
    place_at,
    public_targets,
    targets,
)

PEER = "/p2p/12D3KooWHHzSeKaY8xuZVzkLbKFfvNgPPeKhFBGrMbNzbm5akpqu"


def told(*addresses: str) -> tuple[bytes, ...]:
    return tuple(Multiaddr(address).to_bytes() for address in addresses)


PUBLIC = told("/ip4/5.5.5.5/tcp/1", "/ip4/192.168.1.5/tcp/2")
LAN = told("/ip4/192.168.1.5/tcp/2")
MACHINE = told("/ip4/127.0.0.1/tcp/2")


@pytest.mark.parametrize(
    ("observed", "own", "expected"),
    [
        (["/ip4/5.5.5.5/tcp/1"], ["/ip4/10.0.0.5/tcp/2" + PEER, "/ip4/127.0.0.1/tcp/2" + PEER], [0, 1]),
        ([], ["/ip4/127.0.0.1/tcp/2" + PEER, "/ip4/10.0.0.5/tcp/2" + PEER], [1]),
        ([], ["/ip4/127.0.0.1/tcp/2"], [0]),
        ([], ["/ip4/10.0.0.5/tcp/2", "/ip6/2606:4700::5/tcp/2"], [1, 0]),
        ([], ["/ip4/5.5.5.5/tcp/1" + PEER + "/p2p-circuit", "/ip4/5.5.5.6/udp/1/quic"], []),
        (["/ip4/5.5.5.5/tcp/1"], ["/ip4/5.5.5.5/tcp/1" + PEER], [0]),
    ],
    ids=["nat", "lan", "machine", "public first", "no tcp", "once"],
)
def test_what_is_offered(observed: list[str], own: list[str], expected: list[int]) -> None:
    places = [text.removesuffix(PEER) for text in observed + own]
    assert offered(observed, own) == told(*(places[index] for index in expected))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (PUBLIC, ["/ip4/6.6.6.6/tcp/7", "/ip4/192.168.1.6/tcp/8"], [("6.6.6.6", 7)]),
        (PUBLIC, ["/ip4/5.5.5.5/tcp/7", "/ip4/192.168.1.6/tcp/8"], [("5.5.5.5", 7), ("192.168.1.6", 8)]),
        (LAN, ["/ip4/192.168.1.6/tcp/8", "/ip4/127.0.0.1/tcp/8"], [("192.168.1.6", 8)]),
        (MACHINE, ["/ip4/127.0.0.1/tcp/8"], [("127.0.0.1", 8)]),
        (PUBLIC, ["/ip6/2606:4700::5/tcp/7"], [("2606:4700::5", 7, 0, 0)]),
        (PUBLIC, ["/ip4/5.5.5.5/tcp/1"], []),
        (
            LAN,
            ["/ip4/169.254.1.1/tcp/8", "/ip4/0.0.0.0/tcp/8", "/ip4/224.0.0.1/tcp/8", "/ip6/fe80::1/tcp/8"],
            [],
        ),
        (PUBLIC, ["/dns4/example.org/tcp/7", "/ip4/6.6.6.6/udp/7/quic", "/ip4/6.6.6.6/tcp/0"], []),
    ],
    ids=[
        "another network",
        "the same network",
        "lan",
        "machine",
        "ipv6",
        "ourselves",
        "nowhere",
        "not to dial",
    ],
)
def test_what_is_tried(
    ours: tuple[bytes, ...], theirs: list[str], expected: list[tuple[str, int] | tuple[str, int, int, int]]
) -> None:
    assert targets(told(*theirs), ours) == tuple(Target("tcp", address) for address in expected)


def test_what_is_no_address_is_passed_over() -> None:
    assert targets([b"", b"\xff", b"\x04\x05", *told("/ip4/6.6.6.6/tcp/7")], PUBLIC) == (
        Target("tcp", ("6.6.6.6", 7)),
    )


def test_a_peer_that_names_too_many_is_tried_at_a_few() -> None:
    crowd = told(*(f"/ip4/6.6.6.6/tcp/{port}" for port in range(1, 40)))
    assert len(targets(crowd, PUBLIC)) == MAX_TARGETS


def test_where_a_public_peer_may_be() -> None:
    known = ["/ip4/6.6.6.6/tcp/7" + PEER, "/ip4/192.168.1.6/tcp/8" + PEER, "/ip4/5.5.5.5/tcp/9" + PEER]
    assert public_targets(known, PUBLIC) == (Target("tcp", ("6.6.6.6", 7)), Target("tcp", ("5.5.5.5", 9)))
    assert public_targets(known, LAN) == (Target("tcp", ("6.6.6.6", 7)), Target("tcp", ("5.5.5.5", 9)))


def test_quic_is_offered_and_tried_too() -> None:
    quic = "/ip4/5.5.5.5/udp/1/quic-v1"
    assert offered([quic], []) == told(quic)
    assert targets(told("/ip4/6.6.6.6/udp/7/quic-v1"), PUBLIC) == (Target("quic", ("6.6.6.6", 7)),)


def test_a_port_that_the_nat_keeps_is_offered_over_tcp_too() -> None:
    """Two that meet a relay over QUIC know no mapping for TCP, and UDP may be blocked at one of them."""
    own = ["/ip4/10.0.0.5/tcp/4001", "/ip4/10.0.0.5/udp/4001/quic-v1"]
    seen = "/ip4/5.5.5.5/udp/4001/quic-v1"
    assert offered([seen], own) == told(seen, "/ip4/5.5.5.5/tcp/4001", *own)
    other = "/ip4/5.5.5.5/udp/4002/quic-v1"
    assert offered([other], own) == told(other, *own)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "::ffff:192.168.1.6", "::ffff:6.6.6.6"])
def test_ipv4_in_the_guise_of_ipv6_is_called_nowhere(host: str) -> None:
    """To the system it is IPv4, this machine's own loopback included."""
    assert not targets(told(f"/ip6/{host}/tcp/7"), PUBLIC)
    assert place_at(f"/ip6/{host}/tcp/7") is None


def test_ipv4_in_the_guise_of_ipv6_reaches_as_far_as_it_is() -> None:
    (own,) = told("/ip6/::ffff:127.0.0.1/tcp/7")
    assert scope_of(own) is Scope.MACHINE
