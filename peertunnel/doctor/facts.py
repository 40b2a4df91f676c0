"""What was found out, as values; None is what nobody knows yet."""

import ipaddress
from dataclasses import dataclass, field

from peertunnel.config import Ways
from peertunnel.interfaces import IPAddress
from peertunnel.portmap import Status
from peertunnel.protocols.circuit import Limit


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a peer sees a port of ours: observer is the peer's address, ip and port are ours in its eyes."""

    observer: IPAddress
    ip: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class Datagrams:
    """How UDP did. why_not: why it was not tested. asked: how many peers were called. round_trip: of one that answered, seconds."""

    why_not: str = ""
    asked: int = 0
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class Relay:
    """How a relay did.

    Attributes:
        peer_id: base58.
        is_named: the user has named it.
        round_trip: seconds; None if it was not reached.
        is_relay: whether it offers circuits.
        is_reserved: whether it has granted us a reservation.
        limit: of each circuit, None for none.
        refusal: why it hasn't granted one.
    """

    peer_id: str
    is_named: bool = True
    round_trip: float | None = None
    is_relay: bool = False
    is_reserved: bool = False
    limit: Limit | None = None
    refusal: str = ""


@dataclass(slots=True)
class Facts:
    """Everything that judgements are made from.

    Attributes:
        own: the addresses of this machine, loopback and link-local ones left out.
        ways: which ways tunnels may take.
        finds_locally: whether peers are found on the local network.
        named: how many peers were to be asked, in all.
        reached: how many of them were.
        sightings: how they see one port of ours.
        strangers: whether a peer that a port of ours has never called reaches it from outside.
        acquaintances: the same of one that it has called, which calls back from another port.
        datagrams: how UDP did.
        has_ip6_peers: whether any peer was known to have an IPv6 address.
        by_ip6: whether one of them was reached there.
        maps_ports: whether the router is asked.
        mappings: what came of it.
        mapping_works: whether a peer reaches us through it.
        hairpin: whether this machine reaches itself at its address outside.
        dht_nodes: how many nodes have answered; None where the DHT is off.
        is_dht_server: whether we serve it.
        relays: how they did: those that were named, or else those that were found.
    """

    own: tuple[IPAddress, ...] = ()
    ways: Ways = "any"
    finds_locally: bool = False
    named: int = 0
    reached: int = 0
    sightings: list[Sighting] = field(default_factory=list)
    strangers: bool | None = None
    acquaintances: bool | None = None
    datagrams: Datagrams = field(default_factory=Datagrams)
    has_ip6_peers: bool = False
    by_ip6: bool = False
    maps_ports: bool = False
    mappings: tuple[Status, ...] = ()
    mapping_works: bool | None = None
    hairpin: bool | None = None
    dht_nodes: int | None = None
    is_dht_server: bool = False
    relays: dict[str, Relay] = field(default_factory=dict)

    def has_public(self, version: int) -> bool:
        """Return whether this machine itself has a public address of an IP version."""
        return any(ip.version == version and ip.is_global for ip in self.own)

    @property
    def mapped(self) -> str | None:
        """The multiaddr at which the router lets strangers in by IPv4, if it does."""
        found = (status.address for status in self.mappings)
        return next(
            (place for place in found if place and place.startswith("/ip4/") and "/tcp/" in place), None
        )


def sighting(observer: str, seen: str) -> Sighting | None:
    """Read an observer's IP address and the multiaddr that it has told; None for what is no such thing."""
    match seen.split("/"):
        case ["", "ip4" | "ip6", ip, "tcp" | "udp", port, *_]:
            return Sighting(ipaddress.ip_address(observer), ipaddress.ip_address(ip), int(port))
    return None
