"""`pt doctor` draws the right conclusions: a NAT's name from what peers have seen, advice, and what tunnels to expect."""

import ipaddress
from collections.abc import Sequence
from typing import NoReturn

import pytest

from peertunnel.config import Config
from peertunnel.doctor import examination, judgements
from peertunnel.doctor.behaviour import Filtering, Mapping, filtering, mapping
from peertunnel.doctor.facts import Datagrams, Facts, Relay, Sighting, sighting
from peertunnel.doctor.outlook import outlook
from peertunnel.doctor.servers import Server
from peertunnel.events import Checked
from peertunnel.interfaces import InterfaceAddress
from peertunnel.portmap import Listener, Status
from peertunnel.portmap.router import Mapping as PortMapping
from peertunnel.portmap.search import NOBODY
from peertunnel.portmap.status import status_of
from peertunnel.protocols.circuit import Limit
from tests.node.pair import LOOPBACK, node

OWN, OUTSIDE, ROUTER = (ipaddress.ip_address(ip) for ip in ("192.168.1.2", "1.2.4.1", "192.168.1.1"))
OWN6 = ipaddress.ip_address("2620:4f:8000:1::2")
PEER = "12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"
RELAY = Relay(PEER, round_trip=0.02, is_relay=True, is_reserved=True, limit=Limit(120, 131072))
TCP = Listener("tcp", 4001)
MAPPED = status_of(ROUTER, "PCP", PortMapping(TCP, OUTSIDE, 4001, 600))
BEHIND_CGNAT = status_of(ROUTER, "UPnP", PortMapping(TCP, ipaddress.ip_address("100.64.0.7"), 4001, 600))


def seen(*observers_and_ports: tuple[str, str]) -> list[Sighting]:
    """Say which peer saw us where: its IP address, and "IP PORT" of ours."""
    found = (
        sighting(at, f"/ip{6 if ':' in us else 4}/{us.replace(' ', '/tcp/')}")
        for at, us in observers_and_ports
    )
    return [one for one in found if one is not None]


ONE_PORT = seen(("1.2.3.1", "1.2.4.1 7"), ("1.2.3.2", "1.2.4.1 7"))
TWO_PORTS = seen(("1.2.3.1", "1.2.4.1 7"), ("1.2.3.2", "1.2.4.1 8"))


def test_servers_may_tell_addresses_of_one_part() -> None:
    server = Server(PEER, ("/quic-v1", "/ip6/2620:4f:8000:1::2/udp/1/quic-v1"))
    assert server.has_ip6 and server.by_udp == list(server.places)


@pytest.mark.parametrize(
    ("sightings", "named"),
    [
        ([], Mapping.UNKNOWN),
        (seen(("1.2.3.1", "192.168.1.2 4001")), Mapping.NONE),
        (seen(("1.2.3.1", "1.2.4.1 7")), Mapping.UNKNOWN),
        (seen(("1.2.3.1", "1.2.4.1 7"), ("1.2.3.1", "1.2.4.1 7")), Mapping.UNKNOWN),
        (ONE_PORT, Mapping.INDEPENDENT),
        (TWO_PORTS, Mapping.DEPENDENT),
        (seen(("1.2.3.1", "1.2.4.1 7"), ("1.2.3.2", "1.2.4.2 7")), Mapping.DEPENDENT),
        ([*ONE_PORT, *seen(("192.168.1.9", "192.168.1.2 4001"))], Mapping.INDEPENDENT),
        ([*ONE_PORT, *seen(("2620:4f:8000::1", f"{OWN6} 4001"))], Mapping.INDEPENDENT),
        (seen(("192.168.1.9", "192.168.1.2 4001")), Mapping.UNKNOWN),
        (seen(("2620:4f:8000::1", f"{OWN6} 4001")), Mapping.NONE),
    ],
)  # fmt: skip
def test_mapping(sightings: list[Sighting], named: Mapping) -> None:
    facts = Facts(own=(OWN, OWN6), sightings=sightings)
    assert mapping(facts) is named
    verdict = {Mapping.UNKNOWN: "unknown", Mapping.DEPENDENT: "warning"}.get(named, "ok")
    assert judgements.mapping(facts).verdict == verdict


@pytest.mark.parametrize(
    ("strangers", "acquaintances", "named"),
    [
        (True, True, Filtering.INDEPENDENT),
        (True, None, Filtering.INDEPENDENT),
        (False, True, Filtering.ADDRESS),
        (False, False, Filtering.PORT),
        (None, False, Filtering.PORT),
        (False, None, Filtering.DEPENDENT),
        (None, True, Filtering.NOT_PORT),
        (None, None, Filtering.UNKNOWN),
    ],
)
def test_filtering(strangers: bool | None, acquaintances: bool | None, named: Filtering) -> None:
    assert filtering(Facts(strangers=strangers, acquaintances=acquaintances)) is named


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (Facts(), "problem", "no network"),
        (Facts(own=(OWN,)), "warning", "on the local network"),
        (Facts(own=(OWN,), named=2), "problem", "none beyond the local network"),
        (Facts(own=(OWN,), dht_nodes=0), "problem", "none beyond the local network"),
        (Facts(own=(OWN,), dht_nodes=20), "warning", "with peers that let others in"),
        (Facts(own=(OWN,), relays={PEER: RELAY}), "ok", "by relay at least"),
        (Facts(own=(OWN,), strangers=True, sightings=TWO_PORTS), "ok", "direct from anywhere"),
        (Facts(own=(OWN,), mapping_works=True, sightings=TWO_PORTS), "ok", "direct from anywhere"),
        (Facts(own=(OWN,), sightings=ONE_PORT, relays={PEER: RELAY}), "ok", "hole punching with most NATs, by relay"),
        (Facts(own=(OWN,), sightings=ONE_PORT, reached=2), "warning", "once both name a relay"),
        (Facts(own=(OWN,), sightings=TWO_PORTS, relays={PEER: RELAY}), "warning", "by relay with the others"),
        (Facts(own=(OWN,), sightings=TWO_PORTS, relays={PEER: Relay(PEER)}), "warning", "only with peers that"),
        (Facts(own=(OWN,), ways="relayed", relays={PEER: RELAY}), "ok", "by relay, as you want it"),
        (Facts(own=(OWN,), ways="relayed", relays={PEER: Relay(PEER)}), "problem", "none relays for us"),
        (Facts(own=(OWN,), ways="direct", sightings=ONE_PORT, relays={PEER: RELAY}), "ok", "not at all with the others"),
    ],
)  # fmt: skip
def test_outlook(facts: Facts, verdict: str, words: str) -> None:
    last = outlook(facts)
    assert (last.check, last.verdict) == ("tunnels", verdict)
    assert words in last.finding
    assert bool(last.advice) == (verdict in ("warning", "problem") and "by relay with" not in last.finding)


@pytest.mark.parametrize(
    ("statuses", "works", "verdict", "words"),
    [
        ([], None, "warning", "not answered in time"),
        ([MAPPED], None, "ok", "PCP at 192.168.1.1 gives us /ip4/1.2.4.1/tcp/4001"),
        ([MAPPED], True, "ok", "peers come in there"),
        ([MAPPED], False, "warning", "no peer comes in there"),
        ([BEHIND_CGNAT], None, "warning", "100.64.0.7 is not public"),
        ([Status(ROUTER, TCP, why_not=f"{NOBODY} to PCP")], None, "warning", NOBODY),
        ([Status(None, why_not="there is no router")], None, "warning", "there is no router"),
        ([Status(ROUTER, TCP, why_not="UPnP: no")], None, "warning", "UPnP: no"),
    ],
)
def test_port_mapping(statuses: Sequence[Status], works: bool | None, verdict: str, words: str) -> None:
    facts = Facts(own=(OWN,), maps_ports=True, mappings=tuple(statuses), mapping_works=works)
    checked = judgements.port_mapping(facts)
    assert checked.verdict == verdict
    assert words in checked.finding
    assert ("CGNAT" in checked.advice) == (words in ("100.64.0.7 is not public", "UPnP: no"))


def test_a_public_machine_needs_no_mapping() -> None:
    facts = Facts(
        own=(OUTSIDE,), maps_ports=True, mappings=(Status(ROUTER, TCP, why_not=f"{NOBODY} to PCP"),)
    )
    assert judgements.port_mapping(facts).verdict == "ok"


@pytest.mark.parametrize(
    ("relay", "verdict", "words"),
    [
        (Relay(PEER), "problem", "…MDLoeFuu was not reached"),
        (Relay(PEER, round_trip=0.02), "warning", "answers in 20.0 ms, but relays nothing"),
        (Relay(PEER, round_trip=0.02, is_relay=True, refusal="reservation refused"), "warning", "no place (reservation refused)"),
        (RELAY, "ok", "128 KiB each way and 120 s for each circuit"),
        (Relay(PEER, round_trip=0.02, is_relay=True, is_reserved=True), "ok", "without limits"),
    ],
)  # fmt: skip
def test_relay(relay: Relay, verdict: str, words: str) -> None:
    checked = judgements.relay_of(PEER)(Facts(relays={PEER: relay}))
    assert checked.verdict == verdict
    assert words in checked.finding


def test_relays_that_were_found() -> None:
    found = Relay(PEER, False, 0.02, True, True)
    assert "none was named, 1 found" in judgements.relay_of("")(Facts(relays={PEER: found})).finding
    assert judgements.relay_of("")(Facts(dht_nodes=3)).finding == "none was named, and none found"


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (Facts(own=(OWN,)), "warning"),
        (Facts(own=(OWN6,)), "unknown"),
        (Facts(own=(OWN6,), has_ip6_peers=True), "warning"),
        (Facts(own=(OWN6,), has_ip6_peers=True, by_ip6=True), "ok"),
    ],
)
def test_ipv6(facts: Facts, verdict: str) -> None:
    assert judgements.ipv6(facts).verdict == verdict


@pytest.mark.parametrize(
    ("did", "verdict"),
    [
        (Datagrams("QUIC is off"), "unknown"),
        (Datagrams(), "unknown"),
        (Datagrams(asked=2), "warning"),
        (Datagrams(asked=2, round_trip=0.02), "ok"),
    ],
)
def test_datagrams(did: Datagrams, verdict: str) -> None:
    assert judgements.datagrams(Facts(datagrams=did)).verdict == verdict


@pytest.mark.parametrize(
    ("hairpin", "finds_locally", "verdict"),
    [(None, True, "unknown"), (True, False, "ok"), (False, True, "ok"), (False, False, "warning")],
)
def test_hairpin(hairpin: bool | None, finds_locally: bool, verdict: str) -> None:
    facts = Facts(own=(OWN,), sightings=ONE_PORT, hairpin=hairpin, finds_locally=finds_locally)
    assert judgements.hairpin(facts).verdict == verdict


@pytest.mark.parametrize("told", ["", "/dns4/example.org/tcp/1", "/ip4/1.2.3.4"])
def test_what_is_no_sighting(told: str) -> None:
    assert sighting("1.2.3.1", told) is None


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (Facts(), "problem", "no network"),
        (Facts(own=(OWN,), named=2), "unknown", "not to be found out"),
        (Facts(own=(OWN,), ways="relayed", relays={PEER: Relay(PEER)}), "unknown", "not to be found out"),
        (Facts(own=(OWN,), sightings=TWO_PORTS), "warning", "only with peers that let others in; perhaps more"),
        (Facts(own=(OWN,), strangers=True), "ok", "direct from anywhere"),
    ],
)  # fmt: skip
def test_a_check_that_failed_does_not_say_that_nothing_works(facts: Facts, verdict: str, words: str) -> None:
    last = outlook(facts, is_partial=True)
    assert last.verdict == verdict
    assert words in last.finding


async def test_a_relay_whose_check_failed_may_relay_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> NoReturn:
        raise KeyError("unforeseen")

    monkeypatch.setattr(examination, "try_relay", fail)
    monkeypatch.setattr(examination, "interface_addresses", lambda: (InterfaceAddress("eth0", 1, OWN),))
    told: list[object] = []
    relay = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    config = Config(listen=LOOPBACK, mdns=False, dht=False, portmap=False, relay=(relay,), ways="relayed")
    async with node() as mine:
        await examination.doctor(mine, config, told.append)  # which raises where nothing works
    assert isinstance(last := told[-1], Checked)
    assert last.check == "tunnels" and last.verdict == "unknown"


@pytest.mark.parametrize(
    ("broken", "unknown"),
    [("resolved_servers", {"mapping", "ipv6"}), ("who_comes_in", {"filtering"}), ("why_not", {"udp"})],
)
async def test_a_check_that_fails_is_told_as_such_and_ends_nothing_else(
    broken: str, unknown: set[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("unforeseen")

    monkeypatch.setattr(examination, broken, fail)
    monkeypatch.setattr(examination, "interface_addresses", lambda: (InterfaceAddress("eth0", 1, OWN),))
    told: list[Checked] = []

    def tell(event: object) -> None:
        assert isinstance(event, Checked)
        told.append(event)

    config = Config(listen=LOOPBACK, mdns=False, dht=False, portmap=False)
    async with node() as mine:
        await examination.doctor(mine, config, tell)
    assert {one.check for one in told if "the check failed" in one.finding} == unknown
    assert {one.verdict for one in told if one.check in unknown} == {"unknown"}
    assert len(told) == 10 and told[-1].check == "tunnels"
    assert "unforeseen" in caplog.text
