"""What a router does, as nftables rules.

A router at home drops what nobody asked for in silence. A packet that is dropped in input leaves no entry in the
connection table, so it can't take the port that the machine behind the router is about to use.
"""

from collections.abc import Iterator

from tests.nat.lab.kinds import LEARNING, Nat, Unsolicited

WAN, LAN = "wan0", "lan0"
MAPPING_SECONDS = 300
MAPPINGS = 65535
BURST = "64 kbytes"  # that a protocol may be ahead of its rate

_LAST: dict[Unsolicited, list[str]] = {
    "drop": ["drop"],
    "accept": ["accept"],
    "reject": ["meta l4proto tcp reject with tcp reset", "reject"],
}


def ruleset(nat: Nat) -> str:
    """Return all rules of one router."""
    lines = ["flush ruleset", "table ip nat {", *_translation(nat), "}"]
    lines += ["table inet filter {", *_filter(nat), "}"]
    if nat.upnp:
        lines += _upnp()
    return "\n".join(lines) + "\n"


def loss(table: str, interface: str, probability: float) -> str:
    """Return the rules that lose packets to and from an interface; they replace the table's earlier ones."""
    return _losing(table, interface, f"random mod 1000000 < {min(round(probability * 1e6), 999999)}")


def every(table: str, interface: str, packets: int, first: int) -> str:
    """Return the rules that lose one of so many packets in each direction, counted from now on; likewise."""
    return _losing(table, interface, f"inc mod {packets} == {first}")


def throttled(table: str, interface: str, protocol: str, kib: int) -> str:
    """Return the rules that lose what is above so many KiB/s of a protocol in each direction; likewise."""
    return _dropping(
        table, interface, f"meta l4proto {protocol} limit rate over {kib} kbytes/second burst {BURST}"
    )


def _losing(table: str, interface: str, number: str) -> str:
    return _dropping(table, interface, f"numgen {number}")


def _dropping(table: str, interface: str, match: str) -> str:
    lines = [
        f"table inet {table}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        "chain lose { type filter hook forward priority 0; policy accept;",
        f'iifname "{interface}" {match} drop',
        f'oifname "{interface}" {match} drop',
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _translation(nat: Nat) -> Iterator[str]:
    if nat.kind in LEARNING:
        yield from _learning(nat)
    if nat.translated:
        random = "fully-random" if nat.kind == "symmetric" else ""
        yield "chain post { type nat hook postrouting priority srcnat; policy accept;"
        yield f'oifname "{WAN}" masquerade {random}; }}'


def _learning(nat: Nat) -> Iterator[str]:
    """Rules that note each mapping as a flow from inside makes it, and lead whoever may use it back in."""
    timeout = f"flags dynamic,timeout; timeout {MAPPING_SECONDS}s; size {MAPPINGS};"
    for protocol in ("udp", "tcp"):
        yield f"map mapped_{protocol} {{ type inet_service : ipv4_addr . inet_service; {timeout} }}"
        yield f"set called_{protocol} {{ type inet_service . ipv4_addr; {timeout} }}"
    yield "chain pre { type nat hook prerouting priority dstnat; policy accept;"
    for protocol in ("udp", "tcp"):
        called = f"{protocol} dport . ip saddr @called_{protocol}" if nat.kind == "restricted" else ""
        inward = f'iifname "{WAN}" meta l4proto {protocol} {called}'
        yield f"{inward} dnat ip to {protocol} dport map @mapped_{protocol}"
    yield "}"
    # After srcnat, when the header carries the port outside.
    yield "chain learn { type filter hook postrouting priority 150; policy accept;"
    for protocol in ("udp", "tcp"):
        outward = f'oifname "{WAN}" meta l4proto {protocol} ct direction original update'
        inside = "ct original ip saddr . ct original proto-src"
        yield f"{outward} @mapped_{protocol} {{ {protocol} sport : {inside} }}"
        yield f"{outward} @called_{protocol} {{ {protocol} sport . ip daddr }}"
    yield "}"


def _filter(nat: Nat) -> Iterator[str]:
    yield "chain input { type filter hook input priority filter; policy drop;"
    yield f'iifname {{ "lo", "{LAN}" }} accept'
    yield "ct state established,related accept"
    yield "meta l4proto ipv6-icmp accept"
    yield "icmp type echo-request accept"
    yield from _LAST[nat.unsolicited]
    yield "}"
    yield "chain forward { type filter hook forward priority filter; policy drop;"
    if nat.drops_udp:
        yield "meta l4proto udp drop"
    if nat.block_tcp_ports:
        yield f'iifname "{LAN}" tcp dport {_blocked(nat.block_tcp_ports)} drop'
    if nat.kind == "none":
        yield "accept"
    yield "ct state established,related accept"
    yield f'iifname "{LAN}" accept'
    if nat.kind in LEARNING or nat.upnp:
        yield "ct status dnat accept"
    yield from _LAST["reject" if nat.unsolicited == "reject" else "drop"]
    yield "}"


def _blocked(ports: str | tuple[int, ...]) -> str:
    if isinstance(ports, str):
        return f"!= {{ {ports.removeprefix('all-but:')} }}"
    return f"{{ {', '.join(map(str, ports))} }}"


def _upnp() -> Iterator[str]:
    """The chains that miniupnpd fills; its own forward chain accepts nothing that ours drops."""
    yield "table inet upnp {"
    yield "chain forwarded { }"
    yield "chain mapped { }"
    yield "chain masked { }"
    yield "chain pre { type nat hook prerouting priority dstnat; policy accept; jump mapped; }"
    yield "chain post { type nat hook postrouting priority srcnat; policy accept; jump masked; }"
    yield "}"
