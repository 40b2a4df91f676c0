"""Routers behave as their kinds say: mappings, filters, hole punching, faults."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.nat.lab.kinds import KINDS, Kind, LabError, Nat, Public
from tests.nat.lab.lab import Lab
from tests.nat.lab.probes import (
    BLOCKED,
    TCP,
    UDP,
    Classified,
    bound,
    classify_tcp,
    classify_udp,
    listening,
    udp_mapping,
    unsolicited_tcp,
    unsolicited_udp,
)
from tests.nat.lab.punches import tcp_punch, udp_punch

EXPECTED = {
    "none": Classified("endpoint-independent", "endpoint-independent", True),
    "firewall": Classified("endpoint-independent", "address-and-port-dependent", True),
    "full-cone": Classified("endpoint-independent", "endpoint-independent", True),
    "restricted": Classified("endpoint-independent", "address-dependent", True),
    "cone": Classified("endpoint-independent", "address-and-port-dependent", True),
    "symmetric": Classified("address-and-port-dependent", "address-and-port-dependent", False),
    "udp-blocked": Classified("endpoint-independent", "address-and-port-dependent", True),
}


@pytest.fixture(scope="module")
def every_kind() -> Iterator[Lab]:
    with Lab({kind: kind for kind in KINDS}) as lab:
        yield lab


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_maps_and_filters_as_its_name_says(every_kind: Lab, kind: Kind) -> None:
    here, relay = every_kind.host(kind), every_kind.host("relay")
    assert classify_tcp(here, relay) == EXPECTED[kind]
    assert classify_udp(here, relay) == (BLOCKED if kind == "udp-blocked" else EXPECTED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_nobody_asked_for_comes_in(every_kind: Lab, kind: Kind) -> None:
    here, relay, router = every_kind.host(kind), every_kind.host("relay"), every_kind.router(kind)
    address = router.wan_ip if router.nat.translated else here.ip
    expected = "open" if kind == "none" else "silent"
    assert unsolicited_tcp(here, address, relay) == expected
    assert unsolicited_udp(here, address, relay) == expected


PAIRS: list[tuple[Kind, Kind]] = [
    ("cone", "cone"),
    ("cone", "firewall"),
    ("cone", "udp-blocked"),
    ("full-cone", "cone"),
    ("cone", "symmetric"),
    ("symmetric", "symmetric"),
    ("full-cone", "symmetric"),
    ("restricted", "symmetric"),
    ("none", "symmetric"),
]


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_holes_are_punched_where_theory_allows_it(one: Kind, two: Kind) -> None:
    lets_in = "symmetric" not in (one, two) or (one, two)[0] in ("none", "full-cone", "restricted")
    with Lab({"alice": one, "bob": two}) as lab:
        alice, bob, relay = lab.host("alice"), lab.host("bob"), lab.host("relay")
        udp, opened = lets_in and "udp-blocked" not in (one, two), "symmetric" not in (one, two)
        assert bool(udp_punch(alice, bob, relay, seconds=_patience(udp))) == udp
        assert bool(tcp_punch(alice, bob, relay, seconds=_patience(opened))) == opened
        assert bool(tcp_punch(alice, bob, relay, seconds=_patience(lets_in), listen=True)) == lets_in


def _patience(works: bool) -> float:
    return 10.0 if works else 0.8


@pytest.mark.parametrize("skew", [0.0, 0.005, 0.3])
def test_a_simultaneous_open_works_whoever_is_late(skew: float) -> None:
    with Lab({"alice": Nat("cone", delay_ms=25), "bob": Nat("cone", delay_ms=10)}) as lab:
        assert tcp_punch(lab.host("alice"), lab.host("bob"), lab.host("relay"), skew=skew)


def test_a_router_that_rejects_refuses() -> None:
    with Lab({"alice": Nat("cone", unsolicited="reject"), "bob": Nat("cone", unsolicited="accept")}) as lab:
        for name in ("alice", "bob"):
            address = lab.router(name).wan_ip
            assert unsolicited_tcp(lab.host(name), address, lab.host("relay")) == "refused"


def test_two_machines_behind_one_router_and_the_same_prefix_behind_another() -> None:
    with Lab({"alice": Nat("cone", hosts=2), "bob": Nat("cone", lan="192.168.1.0/24")}) as lab:
        relay, alice, alice2, bob = (lab.host(name) for name in ("relay", "alice", "alice2", "bob"))
        assert bob.ip == alice.ip
        with bound(alice, UDP, 5000) as one, bound(alice2, UDP, 5000) as two:
            with bound(relay, UDP, ip=relay.ip) as server:
                first, second = udp_mapping(one, server), udp_mapping(two, server)
            assert first and second and first[0] == second[0] and first[1] != second[1]
            one.sendto(b"lan", (alice2.ip, 5000))
            two.settimeout(1)
            assert two.recvfrom(10) == (b"lan", (alice.ip, 5000))
        assert udp_punch(alice2, bob, relay)


def test_two_routers_in_a_row_let_nobody_in_by_the_inner_ones_rules() -> None:
    with Lab({"alice": Nat("cone", behind="symmetric"), "bob": Nat("full-cone", behind="cone")}) as lab:
        alice, bob, relay = lab.host("alice"), lab.host("bob"), lab.host("relay")
        assert classify_tcp(alice, relay) == EXPECTED["symmetric"]
        assert classify_udp(bob, relay) == EXPECTED["cone"]
        assert lab.router("alice").wan_ip.startswith("100.64.")
        assert not tcp_punch(alice, bob, relay, seconds=0.8, listen=True)


def test_ipv6_is_routed_and_nothing_new_comes_in() -> None:
    nats = {"alice": Nat("cone", ipv6=True), "bob": Nat("none", ipv6=True), "carol": Nat("cone")}
    with Lab(nats) as lab:
        alice, bob, relay = lab.host("alice"), lab.host("bob"), lab.host("relay")
        assert unsolicited_tcp(bob, bob.ip6, relay) == "open"
        assert unsolicited_tcp(bob, bob.ip6, alice) == "open"
        assert unsolicited_tcp(alice, alice.ip6, relay) == "silent"
        assert unsolicited_udp(alice, alice.ip6, bob) == "silent"
        assert not lab.host("carol").ip6s


def test_ipv6_firewalls_are_punched_through() -> None:
    with Lab({"alice": Nat("cone", ipv6=True, delay_ms=5), "bob": Nat("firewall", ipv6=True)}) as lab:
        alice, bob = lab.host("alice"), lab.host("bob")
        with bound(alice, TCP, 4001, alice.ip6) as one, bound(bob, TCP, 4001, bob.ip6) as two:
            one.setblocking(False)
            assert one.connect_ex((bob.ip6, 4001))  # in progress: the firewall there drops it
            two.settimeout(2)
            two.connect((alice.ip6, 4001))
            two.sendall(b"through")
            one.settimeout(2)
            assert one.recv(10) == b"through"


def test_delay_and_loss_change_while_the_lab_runs() -> None:
    with Lab({"alice": Nat("cone", delay_ms=25)}) as lab:
        alice, relay = lab.host("alice"), lab.host("relay")
        assert 0.049 < _round_trip(lab) < 0.090
        lab.link("alice").set_delay(5)
        assert _round_trip(lab) < 0.030
        lab.link("alice").set_loss(1.0)
        assert classify_udp(alice, relay) == BLOCKED
        lab.link("alice").set_loss(0)
        assert classify_udp(alice, relay) == EXPECTED["cone"]
        with pytest.raises(LabError):
            lab.link("relay").set_delay(5)


def test_every_tenth_packet_is_lost_from_where_one_says() -> None:
    """The same ones in each run: a benchmark's rivals lose alike."""
    with Lab({}, {"relay": Public(), "other": Public(delay_ms=1)}) as lab:
        relay, other = lab.host("relay"), lab.host("other")
        with bound(relay, UDP, ip=relay.ip) as server, bound(other, UDP) as client:
            for first in (3, 7):
                lab.link("other").lose_every(10, first)
                for number in range(30):
                    client.sendto(bytes([number]), server.getsockname())
                arrived = [server.recv(10)[0] for _ in range(27)]
                assert arrived == [number for number in range(30) if number % 10 != first]


def _round_trip(lab: Lab) -> float:
    relay = lab.host("relay")
    times = []
    with bound(relay, UDP, ip=relay.ip) as server, bound(lab.host("alice"), UDP) as here:
        for _ in range(5):
            began = time.monotonic()
            outside = udp_mapping(here, server)
            assert outside is not None
            server.sendto(b"back", outside)
            assert here.recv(10) == b"back"
            times.append(time.monotonic() - began)
    return min(times)


def test_a_mapping_is_forgotten_when_it_is_idle() -> None:
    with Lab({"alice": Nat("cone", udp_timeout=1, udp_stream_timeout=1)}) as lab:
        alice, relay = lab.host("alice"), lab.host("relay")
        with bound(alice, UDP) as here, bound(relay, UDP, ip=relay.ip) as server:
            outside = udp_mapping(here, server)
            assert outside is not None
            here.settimeout(0.3)
            deadline = time.monotonic() + 10
            while any(f"dport={server.getsockname()[1]}" in it for it in lab.router("alice").connections()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            server.sendto(b"late", outside)
            with pytest.raises(TimeoutError):
                here.recv(10)


def test_flushed_connections_go_on_from_inside_where_the_port_is_kept() -> None:
    with Lab({"alice": "cone", "bob": "symmetric"}) as lab:
        for name, survives in (("alice", True), ("bob", False)):
            here, there = _connection(lab, name)
            with here, there:
                lab.router(name).flush()
                here.sendall(b"on")
                there.settimeout(10 if survives else 1)
                if survives:
                    assert there.recv(10) == b"on"
                else:
                    with pytest.raises(TimeoutError):
                        there.recv(10)


def test_a_renumbered_router_has_lost_its_connections() -> None:
    with Lab({"alice": Nat("cone", delay_ms=0)}) as lab:
        here, there = _connection(lab, "alice")
        with here, there:
            before = there.getpeername()[0]
            new = lab.router("alice").renumber()
            here.sendall(b"lost")
            there.settimeout(1)
            with pytest.raises(TimeoutError):
                there.recv(10)
        here, there = _connection(lab, "alice")
        with here, there:
            assert there.getpeername()[0] == new != before


def _connection(lab: Lab, name: str) -> tuple[socket.socket, socket.socket]:
    with listening(lab.host("relay"), ip=lab.host("relay").ip) as listener:
        here = lab.host(name).socket(TCP)
        here.connect(listener.getsockname())
        return here, listener.accept()[0]


def test_a_pulled_cable_and_another_kind() -> None:
    with Lab({"alice": "cone"}) as lab:
        alice, relay, router = lab.host("alice"), lab.host("relay"), lab.router("alice")
        router.wan_down()
        assert classify_udp(alice, relay) == BLOCKED
        router.wan_up()
        assert classify_udp(alice, relay) == EXPECTED["cone"]
        router.load(kind="symmetric")
        assert classify_udp(alice, relay) == EXPECTED["symmetric"]
        with pytest.raises(LabError):
            router.load(kind="none")


def test_closed_ports() -> None:
    with Lab({"alice": Nat("cone", block_tcp_ports="all-but:443")}) as lab:
        relay = lab.host("relay")
        for port, is_open in ((443, True), (4001, False)):
            with listening(relay, port, relay.ip), lab.host("alice").socket(TCP) as here:
                here.settimeout(10 if is_open else 0.5)
                if is_open:
                    here.connect((relay.ip, port))
                else:
                    with pytest.raises(TimeoutError):
                        here.connect((relay.ip, port))
