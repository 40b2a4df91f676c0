"""Each check in a sentence, and what to do about it in another: pure functions of the facts."""

from collections.abc import Callable

from peertunnel.doctor.behaviour import Filtering, Mapping, sightings
from peertunnel.doctor.behaviour import filtering as filtering_of
from peertunnel.doctor.behaviour import mapping as mapping_of
from peertunnel.doctor.facts import Facts, Relay
from peertunnel.events import Checked

_HIDDEN = "not tested: with --relay-only nobody learns our addresses"
_ANOTHER = "Name a pt relay on the internet with --via, or two in different places."


def addresses(facts: Facts) -> Checked:
    """Tell which addresses this machine has."""
    if not facts.own:
        return Checked(
            "addresses", "problem", "none but its own loopback", "Check the network of this machine."
        )
    told = [f"{ip} ({'public' if ip.is_global else 'private'})" for ip in facts.own]
    return Checked("addresses", "ok", ", ".join(told))


def mapping(facts: Facts) -> Checked:
    """Name how the NAT maps."""
    kind = mapping_of(facts)
    seen = sightings(facts)
    match kind:
        case Mapping.NONE:
            return Checked("mapping", "ok", "none: peers see this machine's own address")
        case Mapping.INDEPENDENT:
            return Checked("mapping", "ok", f"{kind.value}: all peers see {seen[0].ip}, port {seen[0].port}")
        case Mapping.DEPENDENT:
            finding = f"{kind.value}: peers in different places see different ports"
            advice = (
                "Hole punching will not work towards another such NAT: name a relay with --via, or use IPv6."
            )
            return Checked("mapping", "warning", finding, advice)
    if facts.ways == "relayed":
        return Checked("mapping", "unknown", _HIDDEN)
    if not seen:
        return Checked(
            "mapping", "unknown", "unknown: no peer on the internet has told how it sees us", _ANOTHER
        )
    finding = f"unknown: seen as {seen[0].ip}, port {seen[0].port}, but by one peer only"
    return Checked("mapping", "unknown", finding, "Name another pt relay in another place with --via.")


def filtering(facts: Facts) -> Checked:
    """Name how NAT and firewall filter."""
    kind = filtering_of(facts)
    match kind:
        case Filtering.INDEPENDENT:
            return Checked("filtering", "ok", f"{kind.value}: strangers are let in")
        case Filtering.ADDRESS:
            return Checked("filtering", "ok", f"{kind.value}: only addresses that were called are let in")
        case Filtering.PORT:
            return Checked(
                "filtering",
                "ok",
                f"{kind.value}: only who was called is let in, from the port that was called",
            )
        case Filtering.DEPENDENT:
            return Checked("filtering", "ok", f"{kind.value}: strangers are not let in")
        case Filtering.NOT_PORT:
            finding = f"{kind.value}: a peer that was called is let in from another port"
            return Checked(
                "filtering", "unknown", finding, "Name another pt relay in another place with --via."
            )
    if facts.ways == "relayed":
        return Checked("filtering", "unknown", _HIDDEN)
    return Checked("filtering", "unknown", "unknown: no peer on the internet calls back (AutoNAT)", _ANOTHER)


def datagrams(facts: Facts) -> Checked:
    """Tell whether UDP passes."""
    did = facts.datagrams
    if did.why_not:
        return Checked("udp", "unknown", f"not tested: {did.why_not}")
    if did.round_trip is not None:
        return Checked("udp", "ok", f"passes: a peer answers over QUIC in {_ms(did.round_trip)}")
    if not did.asked:
        return Checked("udp", "unknown", "unknown: no peer that was named speaks QUIC", _ANOTHER)
    advice = (
        "Tunnels go over TCP. Have the firewall let UDP out if you can: it is the better way through NATs."
    )
    return Checked("udp", "warning", "blocked: no peer answers over QUIC", advice)


def ipv6(facts: Facts) -> Checked:
    """Tell whether IPv6 works."""
    own = next((ip for ip in facts.own if ip.version == 6 and ip.is_global), None)
    if own is None:
        advice = "Switch IPv6 on in the router if the provider has it: between two ends that have it there is no NAT."
        return Checked("ipv6", "warning", "no global address", advice)
    if facts.by_ip6:
        return Checked("ipv6", "ok", f"works: a peer was reached from {own}")
    if facts.has_ip6_peers:
        advice = "Check the IPv6 route of this machine and its router."
        return Checked(
            "ipv6", "warning", f"{own} is a global address, but no peer was reached from it", advice
        )
    return Checked("ipv6", "unknown", f"{own} is a global address; no peer with another was named", _ANOTHER)


def hairpin(facts: Facts) -> Checked:
    """Tell whether this machine reaches itself from outside."""
    if mapping_of(facts) is Mapping.NONE:
        return Checked("hairpin", "ok", "not needed: there is no NAT")
    if facts.hairpin is None:
        return Checked(
            "hairpin", "unknown", "unknown: nobody comes in through the NAT, so this machine can't either"
        )
    if facts.hairpin:
        return Checked("hairpin", "ok", "works: this machine reaches its own address outside")
    if facts.finds_locally:
        return Checked(
            "hairpin", "ok", "doesn't work; peers behind the same router use their local addresses"
        )
    finding = "doesn't work: peers behind the same router can't use the address outside"
    return Checked(
        "hairpin", "warning", finding, "Leave mDNS on, so that they find each other's local addresses."
    )


def port_mapping(facts: Facts) -> Checked:
    """Tell what the router says to our asking."""
    if not facts.maps_ports:
        off = _HIDDEN if facts.ways == "relayed" else "off: --no-portmap"
        return Checked("port-mapping", "unknown", off)
    granted = [status for status in facts.mappings if status.mapping is not None]
    if facts.mapped is not None:
        status = next(status for status in granted if status.address == facts.mapped)
        finding = f"{status.protocol} at {status.gateway} gives us {facts.mapped}"
        if facts.mapping_works is False:
            advice = "Another firewall or NAT may stand before the router: see whether its own address is the public one."
            return Checked("port-mapping", "warning", f"{finding}, but no peer comes in there", advice)
        return Checked(
            "port-mapping", "ok", finding + (", and peers come in there" if facts.mapping_works else "")
        )
    if granted and (why_not := granted[0].why_not):
        finding = f"{granted[0].protocol} maps ports in vain: {why_not}"
        advice = (
            "The provider has a NAT of its own (CGNAT): ask it for a public address, use IPv6, or a relay."
        )
        return Checked("port-mapping", "warning", finding, advice)
    if facts.has_public(4):
        return Checked("port-mapping", "ok", "not needed: this machine has a public address")
    why_nots = [status.why_not for status in facts.mappings if status.why_not]
    finding = why_nots[0] if why_nots else "the router has not answered in time"
    advice = "Switch UPnP or NAT-PMP on in the router, if it is yours and isn't itself behind the provider's NAT (CGNAT)."
    return Checked("port-mapping", "warning", finding, advice)


def dht(facts: Facts) -> Checked:
    """Tell whether the DHT is there."""
    if facts.dht_nodes is None:
        return Checked("dht", "unknown", "off: --no-dht")
    if not facts.dht_nodes:
        advice = "Check the network, or name a way in with --bootstrap or --via."
        return Checked("dht", "problem", "no node has answered", advice)
    role = "one of its servers" if facts.is_dht_server else "a client of it"
    count = "one node has" if facts.dht_nodes == 1 else f"{facts.dht_nodes} nodes have"
    return Checked("dht", "ok", f"{count} answered, and this machine is {role}")


def relay_of(peer_id: str) -> Callable[[Facts], Checked]:
    """Give the judge of a relay that was named, or of those that were found where the id is empty."""
    return lambda facts: _named(facts.relays[peer_id]) if peer_id else _found(facts)


def _named(relay: Relay) -> Checked:
    name = f"…{relay.peer_id[-8:]}"
    if relay.round_trip is None:
        advice = "Check that it is running there, and that its firewall lets others in."
        return Checked("relay", "problem", f"{name} was not reached", advice)
    finding = f"{name} answers in {_ms(relay.round_trip)}"
    if not relay.is_relay:
        advice = "It is good for meeting only: see whether it runs with --no-circuits."
        return Checked("relay", "warning", f"{finding}, but relays nothing", advice)
    if not relay.is_reserved:
        refusal = f" ({relay.refusal})" if relay.refusal else ""
        advice = "Name another one with --via or --relay."
        return Checked("relay", "warning", f"{finding}, but gives us no place{refusal}", advice)
    return Checked("relay", "ok", f"{finding}, and relays for us: {_limit(relay)}")


def _found(facts: Facts) -> Checked:
    able = [relay for relay in facts.relays.values() if relay.is_reserved]
    if not able:
        finding = "none was named" + (", and none found" if facts.dht_nodes is not None else "")
        return Checked(
            "relay", "warning", finding, "Run pt relay on a public machine, and name it with --via."
        )
    best = min(able, key=lambda relay: relay.round_trip or 0.0)
    return Checked("relay", "ok", f"none was named; found {len(able)}, of which one {_limit(best)}")


def _limit(relay: Relay) -> str:
    if relay.limit is None:
        return "without limits"
    parts = [f"{relay.limit.bytes // 1024} KiB each way"] if relay.limit.bytes else []
    parts += [f"{relay.limit.seconds} s"] if relay.limit.seconds else []
    return " and ".join(parts) + " for each circuit" if parts else "without limits"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
