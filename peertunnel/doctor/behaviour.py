"""What a NAT does, in the words of RFC 5780 and RFC 4787, from what peers have seen of it."""

from enum import Enum

from peertunnel.doctor.facts import Facts, Sighting


class Mapping(Enum):
    """Which address outside a port of ours gets."""

    NONE = "none"
    INDEPENDENT = "endpoint-independent"
    DEPENDENT = "address- or address-and-port-dependent"
    UNKNOWN = "unknown"


class Filtering(Enum):
    """Who reaches that address."""

    INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    PORT = "address-and-port-dependent"
    DEPENDENT = "address- or address-and-port-dependent"
    NOT_PORT = "endpoint-independent or address-dependent"
    UNKNOWN = "unknown"


def sightings(facts: Facts) -> list[Sighting]:
    """Give what counts: what peers on the internet have seen, by IPv4 if anything."""
    world = [seen for seen in facts.sightings if seen.observer.is_global]
    return [seen for seen in world if seen.ip.version == 4] or world


def mapping(facts: Facts) -> Mapping:
    """Compare what peers in different places have seen."""
    seen = sightings(facts)
    if not seen:
        return Mapping.UNKNOWN
    if all(one.ip in facts.own for one in seen):
        return Mapping.NONE
    if len({(one.ip, one.port) for one in seen}) > 1:
        return Mapping.DEPENDENT
    return Mapping.INDEPENDENT if len({one.observer for one in seen}) > 1 else Mapping.UNKNOWN


def filtering(facts: Facts) -> Filtering:
    """Compare who came in."""
    match facts.strangers, facts.acquaintances:
        case True, _:
            return Filtering.INDEPENDENT
        case False, True:
            return Filtering.ADDRESS
        case _, False:
            return Filtering.PORT
        case False, None:
            return Filtering.DEPENDENT
        case None, True:
            return Filtering.NOT_PORT
    return Filtering.UNKNOWN
