"""What follows from everything: which tunnels to expect here."""

from peertunnel.doctor.behaviour import Filtering, Mapping, filtering, mapping
from peertunnel.doctor.facts import Facts
from peertunnel.events import Checked, Verdict

_NAME = "Run pt relay on a public machine, and name it with --via."


def outlook(facts: Facts, *, is_partial: bool = False) -> Checked:
    """Give the last word; a problem means that no tunnel will work.

    is_partial: whether facts are missing because a check failed. What is there still shows what works, but not what doesn't.
    """
    last = _expected(facts)
    if not is_partial or last.verdict == "ok" or not facts.own:
        return last
    if last.verdict == "problem":
        return _last("unknown", "not to be found out, since a check failed")
    return _last("warning", f"{last.finding}; perhaps more, since a check failed")


def _expected(facts: Facts) -> Checked:
    has_relay = any(relay.is_reserved for relay in facts.relays.values())
    if not facts.own and not has_relay:
        return _last("problem", "none: this machine has no network", "Check its cable or its radio.")
    if facts.ways == "relayed":
        if has_relay:
            return _last("ok", "by relay, as you want it")
        return _last("problem", "none: only relays may be used, and none relays for us", _NAME)
    if facts.mapping_works or filtering(facts) is Filtering.INDEPENDENT:
        return _last("ok", "direct from anywhere")
    relayed = "not at all" if facts.ways == "direct" else "by relay"
    match mapping(facts):
        case Mapping.NONE | Mapping.INDEPENDENT if has_relay:
            return _last("ok", f"direct by hole punching with most NATs, {relayed} with the others")
        case Mapping.NONE | Mapping.INDEPENDENT:
            finding = "direct with peers that let others in; with most others by hole punching, once both name a relay"
            return _last("warning", finding, _NAME)
        case Mapping.DEPENDENT if has_relay:
            return _last("warning", f"direct with peers that let others in, {relayed} with the others")
        case Mapping.DEPENDENT:
            return _last("warning", "only with peers that let others in", _NAME)
    return _unknown(facts, has_relay)


def _unknown(facts: Facts, has_relay: bool) -> Checked:
    """Say what to expect where the NAT is not known."""
    if has_relay and facts.ways == "any":
        return _last("ok", "by relay at least; whether directly, too, was not to be found out")
    if has_relay or facts.reached or facts.dht_nodes:
        return _last(
            "warning", "with peers that let others in; whether with others was not to be found out", _NAME
        )
    if facts.named or facts.relays or facts.dht_nodes is not None:
        return _last("problem", "none beyond the local network: no peer that was called has answered", _NAME)
    return _last("warning", "on the local network, and with peers whose address is given with --peer", _NAME)


def _last(verdict: Verdict, finding: str, advice: str = "") -> Checked:
    return Checked("tunnels", verdict, finding, advice)
