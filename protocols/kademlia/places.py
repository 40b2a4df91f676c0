"""How far an address reaches, and which network it is in, told from a multiaddr's bytes (multiformats/multiaddr).

An address on this machine or on a LAN means something else, or nothing, to whoever is elsewhere. So one rule holds for
all that is passed on: a peer tells, and is told, only addresses that reach as far as its own farthest one. Nodes on
loopback tell each other of loopback, nodes on a LAN of the LAN, and public ones only of public addresses.
"""

import functools
import ipaddress
from collections.abc import Iterable
from enum import IntEnum

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.varint import decode_varint

_IP4, _IP6, _IP6ZONE = 0x04, 0x29, 0x2A  # multicodec table
_NAMES = (0x35, 0x36, 0x37, 0x38)  # dns, dns4, dns6, dnsaddr
NAMED = "names"  # the group of who tells names but no public address: one machine may have any number of them
_SIZES = {_IP4: 4, _IP6: 16}
_REMEMBERED = 1024  # addresses: the same ones come in answer after answer
_PREFIXES = {4: 24, 6: 48}  # bits that one owner usually has


class Scope(IntEnum):
    """From where an address can be reached."""

    MACHINE = 0
    LAN = 1
    WORLD = 2


@functools.lru_cache(_REMEMBERED)
def scope_of(address: bytes) -> Scope | None:
    """Give from where an address can be reached, None when it doesn't begin with an IP address or a name."""
    code, ip = _first(address)
    if code in _NAMES:
        return Scope.WORLD
    if ip is None:
        return None
    if ip.is_loopback:
        return Scope.MACHINE
    return Scope.WORLD if ip.is_global else Scope.LAN


def farthest(addresses: Iterable[bytes]) -> Scope:
    """Give how far a peer's farthest address reaches; the world when it has none that we know."""
    scopes = [scope for address in addresses if (scope := scope_of(address)) is not None]
    return max(scopes, default=Scope.WORLD)


def within_reach(addresses: Iterable[bytes], scope: Scope) -> tuple[bytes, ...]:
    """Give the addresses that reach at least so far."""
    return tuple(a for a in addresses if (reach := scope_of(a)) is not None and reach >= scope)


@functools.lru_cache(_REMEMBERED)
def group_of(address: bytes) -> str | None:
    """Give the network that a public address is in, a /24 or a /48; None for names, LANs and this machine."""
    _, ip = _first(address)
    if ip is None or not ip.is_global:
        return None
    return str(ipaddress.ip_network((ip, _PREFIXES[ip.version]), strict=False))


def groups_of(addresses: Iterable[bytes]) -> frozenset[str]:
    """Give all networks that a peer's addresses are in; peers that tell names but no public address are in one group."""
    told = tuple(addresses)
    networks = frozenset(group for address in told if (group := group_of(address)) is not None)
    if not networks and any(_first(address)[0] in _NAMES for address in told):
        return frozenset({NAMED})
    return networks


def _first(address: bytes) -> tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """Give the first part's code, and its IP address if it is one; the zone in front of an IPv6 address is skipped."""
    try:
        if (code := decode_varint(address)) is not None and code[0] == _IP6ZONE:
            zone = decode_varint(address, code[1])
            code = decode_varint(address, sum(zone)) if zone is not None else None
    except RemoteProtocolError:
        return 0, None
    if code is None:
        return 0, None
    number, offset = code
    value = address[offset : offset + _SIZES.get(number, 0)]
    if not value or len(value) != _SIZES[number]:
        return number, None
    ip = ipaddress.ip_address(value)
    return number, (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip
