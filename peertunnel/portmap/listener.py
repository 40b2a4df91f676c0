"""What is to be mapped: the ports that we listen on."""

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from peertunnel.protocols.portmap import Transport


class Listener(NamedTuple):
    """A port that we listen on, and the IP version of its address."""

    transport: Transport
    port: int
    version: int = 4


def listeners(addresses: Iterable[str]) -> tuple[Listener, ...]:
    """Read multiaddrs that we listen on, such as /ip4/0.0.0.0/tcp/4001; those that only this machine reaches are left out."""
    found: dict[Listener, None] = {}
    for address in addresses:
        match address.split("/"):
            case ["", "ip4" | "ip6", ip, "tcp" | "udp" as transport, port, *_] if port != "0":
                parsed = ipaddress.ip_address(ip)
                if not parsed.is_loopback:
                    found[Listener("tcp" if transport == "tcp" else "udp", int(port), parsed.version)] = None
    return tuple(found)
