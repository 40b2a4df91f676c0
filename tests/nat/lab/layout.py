"""Where everything lies: machines, devices and routes, as commands of ip(8) for each namespace.

The internet is one namespace, a plain router without a connection table. Every router and public machine has a link
of its own to it, and /32 addresses; what leads nowhere ends in a blackhole. IPv6 goes the same way: the core's end
of every link is fe80::1, the other one fe80::2.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from tests.nat.lab.keeper import Slow, open_device
from tests.nat.lab.kinds import IPV6, LabError, Nat, Plan, Public, Wire
from tests.nat.lab.links import Link
from tests.nat.lab.machines import Machine, Router
from tests.nat.lab.namespaces import inside, ip, setting
from tests.nat.lab.rules import LAN, WAN

CORE = "inet"
DEVICE_LENGTH = 15  # of a name, as the kernel has it

M = TypeVar("M", bound=Machine)


@dataclass
class Layout:
    """The plan as it grows."""

    prefix: str
    plan: Plan
    machines: dict[str, Machine] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    slow: list[Slow] = field(default_factory=list)
    _cables: list[str] = field(default_factory=list)
    _lines: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wan = IPv4Network(self.plan.wan)
        self.gateway = str(wan.broadcast_address - 1)
        self.gateway6 = str(IPv6Network(IPV6)[1])
        self.wan_ips = map(str, wan.hosts())
        self._public = map(str, IPv4Network(self.plan.public).hosts())
        self._lans = IPv4Network(self.plan.lans).subnets(new_prefix=29)
        self._prefixes: Iterator[IPv6Network] = IPv6Network(IPV6).subnets(new_prefix=64)
        next(self._prefixes)

    def name(self, nats: dict[str, Nat], public: dict[str, Public]) -> None:
        """Give every machine its name and namespace."""
        self._machine(CORE)
        for name in public:
            self._machine(name)
        for number, (name, nat) in enumerate(nats.items()):
            if nat.behind:
                shared = f"100.64.{number}.0/24"
                self._router(
                    f"carrier-{name}", replace(nat, kind=nat.behind, behind=None, lan=shared, upnp=False)
                )
            router = self._router(f"nat-{name}", nat)
            names = [name, *(f"{name}{number}" for number in range(2, nat.hosts + 1))]
            router.hosts = [self._machine(host) for host in names]

    def create(self) -> None:
        """Make the namespaces, with nothing in them."""
        ip(f"netns add {machine.namespace}" for machine in self.machines.values())
        for machine in self.machines.values():
            setting(machine.namespace, "net/ipv4/conf/all/rp_filter", 0)
            setting(machine.namespace, "net/ipv4/conf/default/rp_filter", 0)
            setting(machine.namespace, "net/ipv6/conf/default/accept_dad", 0)
            setting(machine.namespace, "net/ipv6/conf/default/accept_ra", 0)
            if isinstance(machine, Router) or machine.name == CORE:
                setting(machine.namespace, "net/ipv4/ip_forward", 1)
                setting(machine.namespace, "net/ipv6/conf/all/forwarding", 1)

    def lay(self, nats: dict[str, Nat], public: dict[str, Public]) -> None:
        """Plan all cables and addresses; slow links get their devices at once."""
        self._lines = {name: ["link set lo up"] for name in self.machines}
        self._lines[CORE] += [
            f"addr add {self.gateway}/32 dev lo",
            f"addr add {self.gateway6}/128 dev lo",
            "route add blackhole default",
            "route add blackhole ::/0",
        ]
        for name, spec in public.items():
            self._lay_public(self.machines[name], spec, any(nat.ipv6 for nat in nats.values()))
        for number, name in enumerate(nats, 1):
            router = self.machines[f"nat-{name}"]
            assert isinstance(router, Router)
            self._lay_router(router, number, self.machines.get(f"carrier-{name}"))

    def build(self) -> None:
        """Make what was planned."""
        ip(self._cables)
        for name, lines in self._lines.items():
            ip(lines, self.machines[name].namespace)

    def _add(self, machine: M) -> M:
        if machine.name in self.machines:
            raise LabError(f"two machines with the name {machine.name}")
        self.machines[machine.name] = machine
        return machine

    def _machine(self, name: str) -> Machine:
        return self._add(Machine(name, f"{self.prefix}-{name}"))

    def _router(self, name: str, nat: Nat) -> Router:
        return self._add(Router(name, f"{self.prefix}-{name}", nat))

    def _lay_public(self, machine: Machine, spec: Public, ipv6: bool) -> None:
        machine.ips = [next(self._public) for _ in range(spec.addresses)]
        self._uplink(machine, "eth0", spec, machine.ips)
        if ipv6:
            network = next(self._prefixes)
            machine.ip6s = [str(network[1])]
            self._lines[machine.name].append(f"addr add {machine.ip6}/128 dev eth0")
            self._uplink6(machine, "eth0", str(network))

    def _lay_router(self, router: Router, number: int, carrier: Machine | None) -> None:
        nat = router.nat
        if nat.translated:
            lan = IPv4Network(nat.lan or f"192.168.{number}.0/24")
        else:
            lan = next(self._lans)
        if isinstance(carrier, Router):
            assert carrier.nat.lan is not None
            carrier.hosts = [router]
            self._lay_wan(carrier, next(self.wan_ips))
            outside = IPv4Network(carrier.nat.lan)
            self._lay_lan(carrier, outside, WAN)
            router.ips, router.gateway = [str(outside[2])], carrier.lan_ip
        else:
            self._lay_wan(router, next(self.wan_ips))
            if not nat.translated:
                device = self.links[-1].core_device
                self._lines[CORE].append(f"route add {lan} via {router.wan_ip} dev {device} onlink")
        self._lay_lan(router, lan, "eth0")
        if nat.ipv6:
            self._lay_lan6(router)

    def _lay_wan(self, router: Router, address: str) -> None:
        router.ips, router.gateway, router.fresh = [address], self.gateway, self.wan_ips
        router.link = self._uplink(router, WAN, router.nat, [address])

    def _lay_lan(self, router: Router, lan: IPv4Network, device: str) -> None:
        """Join a bridge on the router with a device of each machine behind it."""
        addresses = map(str, lan.hosts())
        router.ips.append(next(addresses))
        lines = self._lines[router.name]
        lines += [
            f"link add {LAN} type bridge forward_delay 0",
            f"addr add {router.lan_ip}/{lan.prefixlen} dev {LAN}",
        ]
        for number, host in enumerate(router.hosts):
            address = next(addresses)
            if not isinstance(host, Router):
                host.ips = [address]
            self._cables.append(
                f"link add {device} netns {host.namespace} type veth peer name p{number} netns {router.namespace}"
            )
            lines += [f"link set p{number} master {LAN}", f"link set p{number} up"]
            self._lines[host.name] += [
                f"addr add {address}/{lan.prefixlen} dev {device}",
                f"link set {device} up",
                f"route add default via {router.lan_ip}",
            ]
        lines.append(f"link set {LAN} up")

    def _lay_lan6(self, router: Router) -> None:
        network = next(self._prefixes)
        addresses = map(str, network.hosts())
        router.ip6s = [next(addresses)]
        self._lines[router.name].append(f"addr add {router.ip6}/64 dev {LAN}")
        self._uplink6(router, WAN, str(network))
        for host in router.hosts:
            host.ip6s = [next(addresses)]
            self._lines[host.name] += [
                f"addr add {host.ip6}/64 dev eth0",
                f"route add default via {router.ip6}",
            ]

    def _uplink(self, machine: Machine, device: str, wire: Wire, addresses: list[str]) -> Link:
        core = self.machines[CORE].namespace
        number = len(self.links)
        far = f"w{number}-{machine.name.removeprefix('nat-')}"[:DEVICE_LENGTH]
        link = Link(number, machine.namespace, device, core, far, wire)
        self.links.append(link)
        if wire.delayed:
            ends = inside(link.namespace, lambda: open_device(device)), inside(core, lambda: open_device(far))
            self.slow.append(Slow(number, ends, wire.delay_ms or 0, wire.jitter_ms))
        else:
            self._cables.append(
                f"link add {device} netns {machine.namespace} type veth peer name {far} netns {core}"
            )
        lines = self._lines[machine.name]
        lines += [f"addr add {address}/32 dev {device}" for address in addresses]
        lines += [f"link set {device} up", f"route add default via {self.gateway} dev {device} onlink"]
        self._lines[CORE].append(f"link set {far} up")
        self._lines[CORE] += [f"route add {address} dev {far}" for address in addresses]
        return link

    def _uplink6(self, machine: Machine, device: str, network: str) -> None:
        far = self.links[-1].core_device
        self._lines[machine.name] += [
            f"addr add fe80::2/64 dev {device}",
            f"route add default via fe80::1 dev {device}",
        ]
        self._lines[CORE] += [
            f"addr add fe80::1/64 dev {far}",
            f"route add {ip_network(network)} via fe80::2 dev {far}",
        ]
