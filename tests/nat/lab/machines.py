"""Machines of the lab, and what can be done on each of them; routers can do more."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from tests.nat.lab.kinds import LabError, Nat
from tests.nat.lab.links import Link
from tests.nat.lab.namespaces import TOOLS, entering, inside, ip, nft, run, setting
from tests.nat.lab.rules import LAN, WAN, ruleset
from tests.nat.lab.upnp import start_upnp

RUN_SECONDS = 60.0  # for a command that ends by itself

T = TypeVar("T")


class Machine:
    """A network namespace with its addresses, IPv4 and IPv6."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self.ips: list[str] = []
        self.ip6s: list[str] = []

    @property
    def ip(self) -> str:
        """The first IPv4 address."""
        return self.ips[0]

    @property
    def ip6(self) -> str:
        """The first IPv6 address."""
        return self.ip6s[0]

    def command(self, *words: str) -> list[str]:
        """Return the command that runs another one here; its pid is the program's own."""
        return entering(self.namespace, words)

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program here; the lab ends it if nobody else does."""
        environment = {**os.environ, "PATH": TOOLS}
        return subprocess.Popen(self.command(*words), text=True, env=environment, **options)

    def run(self, *words: str) -> str:
        """Run a program here to its end and give what it printed, errors too; raises LabError when it fails."""
        return run(words, namespace=self.namespace)

    def inside(self, work: Callable[[], T]) -> T:
        """Do something in a thread of this process that is here."""
        return inside(self.namespace, work)

    def socket(self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """Make a socket that is here, for this process to use."""
        return self.inside(lambda: socket.socket(family, kind))


class Router(Machine):
    """A machine between a LAN and the internet, or between a LAN and another router."""

    def __init__(self, name: str, namespace: str, nat: Nat) -> None:
        super().__init__(name, namespace)
        self.nat = nat
        self.hosts: list[Machine] = []
        self.link: Link | None = None  # None behind another router
        self.gateway = ""
        self.fresh: Iterator[str] = iter(())

    @property
    def wan_ip(self) -> str:
        """The address outside."""
        return self.ips[0]

    @property
    def lan_ip(self) -> str:
        """The address inside."""
        return self.ips[1]

    def start(self) -> None:
        """Load the rules for the first time, and run what a router runs."""
        self.load()
        if self.nat.upnp:
            start_upnp(self.namespace)

    def load(self, **changes: Any) -> None:
        """Load the rules, with changes to the Nat: router.load(kind="symmetric"); mappings are lost."""
        nat = replace(self.nat, **changes)
        if nat.translated != self.nat.translated:
            raise LabError("a LAN's addresses are private or public, and stay so")
        self.nat = nat
        nft(ruleset(nat), self.namespace)
        timeouts = {
            "udp_timeout": nat.udp_timeout,
            "udp_timeout_stream": nat.udp_stream_timeout,
            "tcp_timeout_established": nat.tcp_established_timeout,
        }
        for key, seconds in timeouts.items():
            if seconds is not None:
                setting(self.namespace, f"net/netfilter/nf_conntrack_{key}", seconds)

    def connections(self) -> list[str]:
        """Return the connection table, a line each."""
        lines = self.run("conntrack", "-L").splitlines()
        return [line for line in lines if " src=" in line]

    def flush(self) -> None:
        """Forget all connections, as a router does that is switched off and on."""
        for family in ("ipv4", "ipv6"):
            self.run("conntrack", "-F", "-f", family)

    def join(self, machine: Machine, device: str) -> None:
        """Give a machine from elsewhere a device with an address in this LAN too, but no route through it yet."""
        address = self.lan_ip.rpartition(".")[0] + ".200"
        far = f"j-{machine.name}"[:15]
        ip([f"link add {device} type veth peer name {far} netns {self.namespace}"], machine.namespace)
        ip([f"link set {far} master {LAN}", f"link set {far} up"], self.namespace)
        ip([f"addr add {address}/24 dev {device}", f"link set {device} up"], machine.namespace)

    def renumber(self) -> str:
        """Get another public address from the provider, so that every mapping dies; returns the address."""
        if self.link is None or not self.nat.translated:
            raise LabError("only a router that translates, next to the internet, gets another address")
        old, new = self.wan_ip, next(self.fresh)
        device, core = self.link.core_device, self.link.core
        ip([f"route add {new} dev {device}", f"route del {old} dev {device}"], core)
        ip(
            [
                f"addr del {old}/32 dev {WAN}",
                f"addr add {new}/32 dev {WAN}",
                self._default_route(),
            ],
            self.namespace,
        )
        self.ips[0] = new
        self.flush()
        return new

    def wan_down(self) -> None:
        """Pull the cable to the internet."""
        ip([f"link set {WAN} down"], self.namespace)

    def wan_up(self) -> None:
        """Plug it in again."""
        ip([f"link set {WAN} up", self._default_route()], self.namespace)
        if self.nat.ipv6:
            ip([f"route replace default via fe80::1 dev {WAN}"], self.namespace)

    def _default_route(self) -> str:
        return f"route replace default via {self.gateway} dev {WAN} onlink"
