"""How a port's mapping stands, for people and programs."""

from dataclasses import dataclass

from peertunnel.interfaces import IPAddress
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.router import Mapping


@dataclass(frozen=True, slots=True)
class Status:
    """One of our ports at one router.

    gateway: the router's address, None when it is not known. listener: our port, None when there was none to map.
    protocol: "PCP", "NAT-PMP" or "UPnP" once one has granted the mapping. mapping: what was granted.
    why_not: why strangers don't reach the port through it; empty when they do.
    """

    gateway: IPAddress | None
    listener: Listener | None = None
    protocol: str | None = None
    mapping: Mapping | None = None
    why_not: str = ""

    @property
    def address(self) -> str | None:
        """The multiaddr that strangers dial, None when there is none."""
        if self.mapping is None or self.why_not:
            return None
        ip, suffix = self.mapping.external, "/quic-v1" if self.mapping.listener.transport == "udp" else ""
        return f"/ip{ip.version}/{ip}/{self.mapping.listener.transport}/{self.mapping.external_port}{suffix}"


def status_of(gateway: IPAddress | None, protocol: str, mapping: Mapping) -> Status:
    """Judge a mapping: through an address that isn't public, as behind a provider's own NAT, no stranger comes in."""
    is_public = mapping.external.is_global
    why_not = "" if is_public else f"the router's own address {mapping.external} is not public"
    return Status(gateway, mapping.listener, protocol, mapping, why_not)
