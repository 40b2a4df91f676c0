"""Where two peers that can't reach each other may be: what we tell of ourselves, and what of the peer's we try.

An address on a LAN means something only to whoever is on the same LAN: two that the internet sees at one IP address
are, or most likely so; two of which the internet sees neither may be.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import multiaddr.exceptions
from multiaddr import Multiaddr

from peertunnel.interfaces import IPAddress
from peertunnel.protocols.address import AddressError, split_address
from peertunnel.protocols.kademlia.places import Scope, farthest, scope_of
from peertunnel.transport.tcp import SockAddress

MAX_TARGETS = 8  # of a peer that are dialled at once: strangers name them, and each costs somebody packets


@dataclass(frozen=True, slots=True)
class Target:
    """Where a peer is dialled, and over what."""

    transport: Literal["tcp", "quic"]
    address: SockAddress

    @property
    def ip(self) -> IPAddress:
        """The IP address."""
        return ipaddress.ip_address(self.address[0])


def offered(observed: Iterable[str], own: Iterable[str]) -> tuple[bytes, ...]:
    """Give the binary multiaddrs that we tell a peer, those first that most likely lead to us.

    Args:
        observed: multiaddrs, as others see us.
        own: multiaddrs that we listen on, with or without our peer id.
    """
    seen, listening = _places(observed), _places(own)
    found = dict.fromkeys((*seen, *_predicted(seen, listening), *listening))
    reach = farthest(found)
    near = [place for place in found if reach_of(place) >= min(reach, Scope.LAN)]
    return tuple(sorted(near, key=lambda place: reach_of(place) is not Scope.WORLD))


def targets(theirs: Iterable[bytes], ours: Sequence[bytes]) -> tuple[Target, ...]:
    """Give the places at which a peer is worth a try.

    Args:
        theirs: binary multiaddrs as the peer told them.
        ours: those that we told.
    """
    read = map(read_place, theirs)
    told = dict.fromkeys(place for place in read if place is not None and place not in ours)
    reach = farthest(ours)
    is_one_network = not _public_ips(told).isdisjoint(_public_ips(ours))
    least = Scope.LAN if is_one_network and reach is Scope.WORLD else reach
    return tuple(target_of(place) for place in told if reach_of(place) >= least)[:MAX_TARGETS]


def public_targets(theirs: Iterable[str], ours: Sequence[bytes]) -> tuple[Target, ...]:
    """Give the places at which the whole internet may reach a peer; see `targets`."""
    return tuple(target for target in targets(_places(theirs), ours) if target.ip.is_global)


def reach_of(place: bytes) -> Scope:
    """Return from where a place can be reached."""
    return scope_of(place) or Scope.MACHINE


def place_at(text: str) -> bytes | None:
    """Return an IP address and a port for TCP or QUIC as a binary multiaddr, None for anything else."""
    try:
        place, _ = split_address(text)
    except AddressError:
        return None
    match place.split("/"):
        case ["", "ip4" | "ip6", host, "tcp", port] | ["", "ip4" | "ip6", host, "udp", port, "quic-v1"]:
            ip = ipaddress.ip_address(host)
            if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
                return None  # nobody means that, and it may be this machine's own
            if port != "0" and not (ip.is_link_local or ip.is_multicast or ip.is_unspecified):
                return bytes(Multiaddr(place).to_bytes())
    return None


def read_place(data: bytes) -> bytes | None:
    """Do the same for a binary multiaddr that a peer has told."""
    try:
        text = str(Multiaddr(data))
    except (multiaddr.exceptions.Error, ValueError):
        return None
    return place_at(text)


def target_of(place: bytes) -> Target:
    """Return where a place is."""
    _, name, host, layer, port, *_ = str(Multiaddr(place)).split("/")
    address: SockAddress = (host, int(port), 0, 0) if name == "ip6" else (host, int(port))
    return Target("tcp" if layer == "tcp" else "quic", address)


def _places(texts: Iterable[str]) -> list[bytes]:
    return [place for text in texts if (place := place_at(text)) is not None]


def _predicted(seen: Iterable[bytes], listening: Iterable[bytes]) -> Iterator[bytes]:
    """Give where we may be over TCP, when only QUIC was seen: at the same port, if the NAT keeps that.

    Who reaches a relay over both has a connection over one, and no other mapping that is known.
    """
    ports = {target.address[1] for target in map(target_of, listening) if target.transport == "tcp"}
    for target in map(target_of, seen):
        if target.transport == "quic" and target.address[1] in ports:
            yield from _places([f"/ip{target.ip.version}/{target.ip}/tcp/{target.address[1]}"])


def _public_ips(places: Iterable[bytes]) -> set[IPAddress]:
    return {target_of(place).ip for place in places if scope_of(place) is Scope.WORLD}
