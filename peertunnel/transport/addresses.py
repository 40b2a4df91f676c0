"""From the addresses that we listen on to the ones that others can dial."""

import ipaddress
from collections.abc import Callable, Collection, Iterable

from peertunnel.interfaces import InterfaceAddress, IPAddress, interface_addresses

_WILDCARDS = {"/ip4/0.0.0.0/": 4, "/ip6/::/": 6}
_ORDINARY, _VIRTUAL, _LINK_LOCAL, _LOOPBACK = range(4)


def dialable(
    listen: Collection[str],
    interfaces: Callable[[], tuple[InterfaceAddress, ...]] = interface_addresses,
) -> tuple[str, ...]:
    """Expand wildcard multiaddrs into this machine's addresses, those that most others reach first.

    listen: multiaddrs with the real port, such as /ip4/0.0.0.0/tcp/4001; any other stays as it is, in front.
    interfaces: tells what addresses there are now.

    Addresses of container bridges and link-local ones serve only when there is nothing better; loopback comes
    last, for others on this machine. The order is the same each time while the interfaces are.
    """
    wild = {address: version for address in listen if (version := _wildcard_version(address))}
    explicit = [address for address in listen if address not in wild]
    expanded = [
        _with_ip(address, ip)
        for ip in (_worthwhile(interfaces()) if wild else ())
        for address, version in wild.items()
        if version == ip.version
    ]
    return tuple(dict.fromkeys(explicit + expanded))


def is_public(address: str) -> bool:
    """Tell whether a multiaddr is one that the whole internet reaches: global IPv4.

    A global IPv6 address usually stands behind a firewall that lets nobody in.
    """
    match address.split("/"):
        case ["", "ip4", ip, "tcp", *_]:
            return ipaddress.IPv4Address(ip).is_global
    return False


def is_loopback(host: str) -> bool:
    """Tell whether an IP address leads to this machine itself."""
    return ipaddress.ip_address(host.partition("%")[0].removeprefix("::ffff:")).is_loopback


def _worthwhile(addresses: Iterable[InterfaceAddress]) -> list[IPAddress]:
    by_rank: dict[int, list[IPAddress]] = {}
    for address in sorted(addresses, key=lambda address: (address.ip.version, address.index)):
        by_rank.setdefault(_rank(address), []).append(address.ip)
    loopback = by_rank.pop(_LOOPBACK, [])
    return (by_rank[min(by_rank)] if by_rank else []) + loopback


def _rank(address: InterfaceAddress) -> int:
    if address.ip.is_loopback:
        return _LOOPBACK
    if address.ip.is_link_local:
        return _LINK_LOCAL
    return _VIRTUAL if address.is_virtual else _ORDINARY


def _wildcard_version(address: str) -> int | None:
    return next((version for head, version in _WILDCARDS.items() if address.startswith(head)), None)


def _with_ip(address: str, ip: IPAddress) -> str:
    _, name, _, rest = address.split("/", 3)
    return f"/{name}/{ip}/{rest}"
