"""Where this machine's router is, read from Linux's routing tables.

Other systems don't show theirs as files. There the gateway's address stays unknown, and only UPnP can be asked,
which finds routers by multicast.
"""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peertunnel.interfaces import InterfaceAddress, IPAddress, interface_addresses

MAX_HOLES = (
    4  # IPv6 addresses that get their hole in the firewall; a machine with privacy extensions has a few
)
_ROUTES = Path("/proc/net/route")
_ROUTES6 = Path("/proc/net/ipv6_route")
_UP, _GATEWAY = 0x1, 0x2  # RTF_UP and RTF_GATEWAY, Linux
_ELSEWHERE = "192.0.2.1"  # any address beyond the router (RFC 5737); nothing is sent there


@dataclass(frozen=True, slots=True)
class Gateway:
    """A router and our side of the way to it.

    ip: its address, None when the system doesn't tell. own: ours, which it sees. index: the interface's number.
    """

    ip: IPAddress | None
    own: IPAddress
    index: int = 0


def default_gateways(
    interfaces: Callable[[], tuple[InterfaceAddress, ...]] = interface_addresses,
) -> tuple[Gateway, ...]:
    """Find the default router of IPv4, and that of IPv6 once for each of our global addresses; as of now.

    Raises:
        OSError: we can't look, since there are no descriptors left, say.
    """
    if os.access(_ROUTES, os.R_OK):
        with suppress(ValueError):  # they are not as Linux writes them
            return tuple(_listed(interfaces))
    own = _own_address(_ELSEWHERE)  # another system, or one that tells nobody, as Android
    return () if own is None else (Gateway(None, own),)


def _listed(interfaces: Callable[[], tuple[InterfaceAddress, ...]]) -> Iterator[Gateway]:
    for _, ip in sorted(_routes4(_lines(_ROUTES)))[:1]:
        if (own := _own_address(str(ip))) is not None:
            yield Gateway(ip, own)
    for _, ip6, interface in sorted(_routes6(_lines(_ROUTES6)))[:1]:
        owns = [a for a in interfaces() if a.interface == interface and a.ip.version == 6 and a.ip.is_global]
        for address in owns[:MAX_HOLES]:
            yield Gateway(ip6, address.ip, address.index)


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except (FileNotFoundError, PermissionError):  # there is no IPv6, or nobody is told of it
        return []


def _routes4(lines: Iterable[list[str]]) -> Iterator[tuple[int, ipaddress.IPv4Address]]:
    """Yield metric and gateway of each default route; the addresses stand there in the machine's byte order."""
    for _, destination, gateway, flags, _, _, metric, mask, *_ in lines:
        if destination == mask == "00000000" and int(flags, 16) & (_UP | _GATEWAY) == _UP | _GATEWAY:
            number = int(gateway, 16)
            yield int(metric), ipaddress.IPv4Address(socket.htonl(number))


def _routes6(lines: Iterable[list[str]]) -> Iterator[tuple[int, ipaddress.IPv6Address, str]]:
    """Yield metric, gateway and interface of each default route."""
    for destination, length, _, _, gateway, metric, _, _, flags, interface in lines:
        if int(destination, 16) == int(length, 16) == 0 and int(flags, 16) & _GATEWAY:
            yield int(metric, 16), ipaddress.IPv6Address(int(gateway, 16)), interface


def _own_address(towards: str) -> ipaddress.IPv4Address | None:
    """Return the address that packets to another one would leave from; connecting UDP sends none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError:
            return None
        return ipaddress.IPv4Address(probe.getsockname()[0])
