"""Where two peers that can't reach each other may be: what we tell of ourselves, and what of the peer's we try.

An address on a LAN means something only to whoever is on the same LAN: two that the internet sees at one IP address
are, or most likely so; two of which the internet sees neither may be.
"""

import ipaddress
from collections.abc import Iterable, Sequence

import multiaddr.exceptions
from multiaddr import Multiaddr

from peertunnel.interfaces import IPAddress
from peertunnel.protocols.address import AddressError, split_address
from peertunnel.protocols.kademlia.places import Scope, farthest, scope_of
from peertunnel.transport.tcp import SockAddress

MAX_TARGETS = (
    8  # of a peer that are dialled at once; strangers name them, so each costs somebody a few packets
)


def offered(observed: Iterable[str], own: Iterable[str]) -> tuple[bytes, ...]:
    """Give the binary multiaddrs that we tell a peer, those first that most likely lead to us.

    Args:
        observed: multiaddrs, as others see us.
        own: multiaddrs that we listen on, with or without our peer id.
    """
    found = dict.fromkeys(place for text in (*observed, *own) if (place := place_at(text)) is not None)
    reach = farthest(found)
    near = [place for place in found if reach_of(place) >= min(reach, Scope.LAN)]
    return tuple(sorted(near, key=lambda place: reach_of(place) is not Scope.WORLD))


def targets(theirs: Iterable[bytes], ours: Sequence[bytes]) -> tuple[SockAddress, ...]:
    """Give the socket addresses at which a peer is worth a try.

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


def public_targets(theirs: Iterable[str], ours: Sequence[bytes]) -> tuple[SockAddress, ...]:
    """Give the socket addresses at which the whole internet may reach a peer; see `targets`."""
    told = targets((Multiaddr(text).to_bytes() for text in theirs), ours)
    return tuple(target for target in told if ipaddress.ip_address(target[0]).is_global)


def reach_of(place: bytes) -> Scope:
    """Return from where a place can be reached."""
    return scope_of(place) or Scope.MACHINE


def place_at(text: str) -> bytes | None:
    """Return an IP address and a TCP port that can be dialled as a binary multiaddr, None for anything else."""
    try:
        place, _ = split_address(text)
    except AddressError:
        return None
    match place.split("/"):
        case ["", "ip4" | "ip6", host, "tcp", port]:
            ip = ipaddress.ip_address(host)
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


def target_of(place: bytes) -> SockAddress:
    """Return the socket address of a place."""
    _, name, host, _, port = str(Multiaddr(place)).split("/")
    return (host, int(port), 0, 0) if name == "ip6" else (host, int(port))


def _public_ips(places: Iterable[bytes]) -> set[IPAddress]:
    return {ipaddress.ip_address(target_of(place)[0]) for place in places if scope_of(place) is Scope.WORLD}
