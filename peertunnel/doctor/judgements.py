"""Each check in a sentence, and what to do about it in another: pure functions of the facts."""

from collections.abc import Callable

from peertunnel.doctor.behaviour import Filtering, Mapping, sightings
from peertunnel.doctor.behaviour import filtering as filtering_of
from peertunnel.doctor.behaviour import mapping as mapping_of
from peertunnel.doctor.facts import Facts, Relay
from peertunnel.events import Checked
from peertunnel.portmap.search import NOBODY

_HIDDEN = "not tested: with --relay-only nobody learns our addresses"
_FIRST = "Name a pt relay on the internet with --via, or two in different places."
_SECOND = "Name another pt relay in another place with --via."
_RUN_ONE = "Run pt relay on a public machine, and name it with --via."
_CGNAT = "ask the provider for a public address, or use IPv6 or a relay."
_SWITCH_ON = "Switch UPnP or NAT-PMP on in the router, if it is yours."
_REPORT = "Run it again with -vv, and report what it prints."
_COMERS = {
    Filtering.INDEPENDENT: "strangers are let in",
    Filtering.ADDRESS: "only addresses that were called are let in",
    Filtering.PORT: "only who was called is let in, from the port that was called",
    Filtering.DEPENDENT: "strangers are not let in",
    Filtering.NOT_PORT: "who was called is let in from other ports, too",
}


def addresses(facts: Facts) -> Checked:
    """Tell which addresses this machine has."""
    if not facts.own:
        return Checked("addresses", "problem", "none but loopback", "Check the network of this machine.")
    told = [f"{ip} ({'public' if ip.is_global else 'private'})" for ip in facts.own]
    return _ok("addresses", ", ".join(told))


def mapping(facts: Facts) -> Checked:
    """Name how the NAT maps."""
    seen, kind = sightings(facts), mapping_of(facts)
    match kind:
        case Mapping.NONE:
            return _ok("mapping", "none: peers see this machine's own address")
        case Mapping.INDEPENDENT:
            return _ok("mapping", f"{kind.value}: all peers see {seen[0].ip}, port {seen[0].port}")
        case Mapping.DEPENDENT:
            finding = f"{kind.value}: peers in different places see different ports"
            advice = (
                "TCP holes can't be punched towards another such NAT: name a relay with --via, or use IPv6."
            )
            return _warning("mapping", finding, advice)
    if facts.ways == "relayed":
        return _unknown("mapping", _HIDDEN)
    if not seen:
        return _unknown("mapping", "no peer on the internet has told how it sees us", _FIRST)
    return _unknown("mapping", f"seen as {seen[0].ip}, port {seen[0].port}, but by one peer only", _SECOND)


def filtering(facts: Facts) -> Checked:
    """Name how NAT and firewall filter."""
    kind = filtering_of(facts)
    if kind is Filtering.UNKNOWN:
        if facts.ways == "relayed":
            return _unknown("filtering", _HIDDEN)
        return _unknown("filtering", "no peer on the internet calls back (AutoNAT)", _FIRST)
    finding = f"{kind.value}: {_COMERS[kind]}"
    return (
        _unknown("filtering", finding, _SECOND) if kind is Filtering.NOT_PORT else _ok("filtering", finding)
    )


def datagrams(facts: Facts) -> Checked:
    """Tell whether UDP passes."""
    did = facts.datagrams
    if did.why_not:
        return _unknown("udp", f"not tested: {did.why_not}")
    if did.round_trip is not None:
        return _ok("udp", f"passes: a peer answers over QUIC in {_ms(did.round_trip)}")
    if not did.asked:
        return _unknown("udp", "no peer that was named speaks QUIC", _FIRST)
    advice = "Tunnels go over TCP, then; if the firewall is yours, let UDP out."
    return _warning("udp", "blocked: no peer answers over QUIC", advice)


def ipv6(facts: Facts) -> Checked:
    """Tell whether IPv6 works."""
    own = next((ip for ip in facts.own if ip.version == 6 and ip.is_global), None)
    if own is None:
        advice = (
            "Switch it on in the router, if the provider has it: between two ends with IPv6 there is no NAT."
        )
        return _warning("ipv6", "no global address", advice)
    if facts.by_ip6:
        return _ok("ipv6", f"works: a peer was reached from {own}")
    if facts.has_ip6_peers:
        advice = "Check the IPv6 route of this machine, and of its router."
        return _warning("ipv6", f"no peer was reached from {own}", advice)
    return _unknown("ipv6", f"no peer with IPv6 was named to be reached from {own}", _FIRST)


def hairpin(facts: Facts) -> Checked:
    """Tell whether this machine reaches itself from outside."""
    if mapping_of(facts) is Mapping.NONE:
        return _ok("hairpin", "not needed: there is no NAT")
    if facts.hairpin is None:
        return _unknown("hairpin", "nobody comes in through the NAT, so this machine can't either")
    if facts.hairpin:
        return _ok("hairpin", "works: this machine reaches its own address outside")
    if facts.finds_locally:
        return _ok("hairpin", "doesn't work; peers behind the same router use their local addresses")
    finding = "doesn't work: peers behind the same router can't use the address outside"
    return _warning("hairpin", finding, "Leave mDNS on, so that they find each other's local addresses.")


def port_mapping(facts: Facts) -> Checked:
    """Tell what the router says to our asking."""
    if not facts.maps_ports:
        return _unknown("port-mapping", _HIDDEN if facts.ways == "relayed" else "off: --no-portmap")
    if facts.mapped is not None:
        return _mapped(facts, facts.mapped)
    vain = [status for status in facts.mappings if status.mapping is not None and status.why_not]
    if vain:
        advice = f"The provider has a NAT of its own (CGNAT): {_CGNAT}"
        return _warning("port-mapping", f"{vain[0].protocol} maps in vain: {vain[0].why_not}", advice)
    if facts.has_public(4):
        return _ok("port-mapping", "not needed: this machine has a public address")
    refused = next((status for status in facts.mappings if status.why_not), None)
    if refused is None:
        return _warning("port-mapping", "the router has not answered in time", _SWITCH_ON)
    advice = f"If the router's own address is not public (CGNAT), {_CGNAT}"
    if refused.listener is None:
        advice = "Check the network of this machine."
    elif refused.why_not.startswith(NOBODY):
        advice = _SWITCH_ON
    return _warning("port-mapping", refused.why_not, advice)


def _mapped(facts: Facts, place: str) -> Checked:
    status = next(status for status in facts.mappings if status.address == place)
    by = "a router" if status.gateway is None else status.gateway
    finding = f"{status.protocol} at {by} gives us {place}"
    if facts.mapping_works is False:
        advice = "See whether another firewall or NAT stands before the router."
        return _warning("port-mapping", f"{finding}, but no peer comes in there", advice)
    return _ok("port-mapping", finding + (", and peers come in there" if facts.mapping_works else ""))


def dht(facts: Facts) -> Checked:
    """Tell whether the DHT is there."""
    if facts.dht_nodes is None:
        return _unknown("dht", "off: --no-dht")
    if not facts.dht_nodes:
        advice = "Check the network, or name a way in with --bootstrap or --via."
        return Checked("dht", "problem", "no node has answered", advice)
    role = "one of its servers" if facts.is_dht_server else "a client of it"
    count = "one node has" if facts.dht_nodes == 1 else f"{facts.dht_nodes} nodes have"
    return _ok("dht", f"{count} answered, and this machine is {role}")


def relay_of(peer_id: str) -> Callable[[Facts], Checked]:
    """Give the judge of a relay that was named, or of those that were found where the id is empty."""
    return lambda facts: _named(facts.relays[peer_id]) if peer_id else _found(facts)


def failed(checked: Checked) -> Checked:
    """Give the place of a judgement whose facts could not be found out: what is missing would be taken for an answer."""
    return _unknown(checked.check, "not tested: the check failed, which is a bug in pt", _REPORT)


def _named(relay: Relay) -> Checked:
    name = f"…{relay.peer_id[-8:]}"
    if relay.round_trip is None:
        advice = "Check that it is running there, and that its firewall lets others in."
        return Checked("relay", "problem", f"{name} was not reached", advice)
    finding = f"{name} answers in {_ms(relay.round_trip)}"
    if not relay.is_relay:
        advice = "It is good for meeting only: see whether it runs with --no-circuits."
        return _warning("relay", f"{finding}, but relays nothing", advice)
    if not relay.is_reserved:
        refusal = f" ({relay.refusal})" if relay.refusal else ""
        return _warning("relay", f"{finding}, but gives us no place{refusal}", _SECOND)
    return _ok("relay", f"{finding}, and relays for us: {_limit(relay)}")


def _found(facts: Facts) -> Checked:
    able = [relay for relay in facts.relays.values() if relay.is_reserved]
    if not able:
        finding = "none was named" + (", and none found" if facts.dht_nodes is not None else "")
        return _warning("relay", finding, _RUN_ONE)
    best = min(able, key=lambda relay: relay.round_trip or 0.0)
    return _ok("relay", f"none was named, {len(able)} found; the nearest: {_limit(best)}")


def _limit(relay: Relay) -> str:
    parts: list[str] = []
    if relay.limit is not None:
        parts += [f"{relay.limit.bytes // 1024} KiB each way"] if relay.limit.bytes else []
        parts += [f"{relay.limit.seconds} s"] if relay.limit.seconds else []
    return f"{' and '.join(parts)} for each circuit" if parts else "without limits"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _ok(check: str, finding: str) -> Checked:
    return Checked(check, "ok", finding)


def _warning(check: str, finding: str, advice: str) -> Checked:
    return Checked(check, "warning", finding, advice)


def _unknown(check: str, finding: str, advice: str = "") -> Checked:
    return Checked(check, "unknown", finding, advice)
