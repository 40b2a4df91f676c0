"""What can be built: kinds of routers, public machines, their links, and the addresses that they get."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

Kind = Literal["none", "firewall", "full-cone", "restricted", "cone", "symmetric", "udp-blocked"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""
none         public addresses behind a router that lets everything through
firewall     public addresses; nothing new comes in
full-cone    one mapping for all destinations; whoever knows it gets in
restricted   one mapping; addresses get in that were contacted
cone         one mapping; address and port must have been contacted: Linux's masquerade, most routers at home
symmetric    another mapping for each destination, at a random port
udp-blocked  cone for TCP, and no UDP at all
"""
ROUTED: tuple[Kind, ...] = ("none", "firewall")  # their machines have public addresses
LEARNING: tuple[Kind, ...] = ("full-cone", "restricted")  # their mappings outlive the flow that made them

Unsolicited = Literal["drop", "reject", "accept"]


class LabError(RuntimeError):
    """What was asked for can't be built, or a tool failed."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A link to the internet.

    delay_ms and jitter_ms are milliseconds in each direction, order kept; a link that is made with None can't have
    any later. loss is a probability in each direction, rate what tc calls one ("20mbit"), or (up, down).
    """

    delay_ms: float | None = None
    jitter_ms: float = 0
    loss: float = 0.0
    rate: str | tuple[str, str] | None = None

    @property
    def delayed(self) -> bool:
        """Tell whether packets pass the lab's own process, which holds them back."""
        return self.delay_ms is not None or self.jitter_ms > 0


@dataclass(frozen=True)
class Public(Wire):
    """A machine with so many public addresses."""

    addresses: int = 2


@dataclass(frozen=True)
class Nat(Wire):
    """A router with machines behind it.

    hosts         how many machines
    lan           their prefix; several routers may have the same
    behind        the kind of another router, the provider's, between this one and the internet
    ipv6          a public IPv6 prefix beside IPv4: routed, nothing new comes in (but for kind none)
    upnp          a miniupnpd that forwards ports: UPnP IGD, NAT-PMP and PCP
    block_udp     drop all UDP
    block_tcp_ports  ports that nobody inside reaches, or "all-but:443,80"
    unsolicited   what befalls what nobody asked for: dropped as at home, rejected with RST or ICMP, or accepted, so
                  that the router's own stack answers and its connection table keeps an entry
    *_timeout     seconds that the connection table keeps a flow; None for 30, 120 and 432,000
    """

    kind: Kind = "cone"
    _: KW_ONLY
    hosts: int = 1
    lan: str | None = None
    behind: Kind | None = None
    ipv6: bool = False
    upnp: bool = False
    block_udp: bool = False
    block_tcp_ports: str | tuple[int, ...] = ()
    unsolicited: Unsolicited = "drop"
    udp_timeout: int | None = None
    udp_stream_timeout: int | None = None
    tcp_established_timeout: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LabError(f"no NAT of kind {self.kind!r}, but of {', '.join(KINDS)}")
        if self.behind in ROUTED:
            raise LabError("a provider's router translates: behind is not none or firewall")
        if self.behind and self.ipv6:
            raise LabError("no IPv6 behind two routers")

    @property
    def translated(self) -> bool:
        """Tell whether the machines have private addresses."""
        return self.kind not in ROUTED

    @property
    def drops_udp(self) -> bool:
        """Tell whether no UDP passes."""
        return self.block_udp or self.kind == "udp-blocked"


@dataclass(frozen=True)
class Plan:
    """The prefixes of public machines, routers and routed LANs."""

    public: str
    wan: str
    lans: str


# Stacks leave out addresses that they don't take for public: go-libp2p those for documentation, Python 3.13 all of
# 192.0.0.0/24 as well. These are sinks of AS112 and AMT, public to everybody; nothing here has a route outside.
SINKS = Plan(public="192.175.48.0/24", wan="192.31.196.0/24", lans="192.52.193.0/24")
# miniupnpd forwards no port on a router whose address is such a sink.
LOOKALIKES = Plan(public="1.2.3.0/24", wan="1.2.4.0/24", lans="1.2.5.0/24")
IPV6 = "2620:4f:8000::/48"  # AS112 again; 2001:db8::/32 is public to nobody
