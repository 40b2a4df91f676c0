"""A home: a router with miniupnpd between a LAN and a stranger, each in a network namespace."""

import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.interop.peers import Running, running
from tests.node.lan import Machine, open_machine
from tests.tools import need

PROCESS = Path(__file__).with_name("portmap_process.py")
ROUTER, HOST, OTHER_ROUTER, NEIGHBOUR = "192.168.7.1", "192.168.7.2", "192.168.8.1", "192.168.8.2"
OUTSIDE, RENUMBERED, STRANGER = (
    "1.2.4.1",
    "1.2.4.7",
    "1.2.4.9",
)  # miniupnpd maps nothing at addresses that are reserved for tests
HOST6, STRANGER6 = "2a00:1234:7::2", "2a00:1234:9::9"
PORT = 4001
READY_SECONDS = 10.0

_RULES = """
table inet filter {
    chain input { type filter hook input priority 0; %s }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname { "eth0", "eth1" } accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        jump forwarded
    }
    chain forwarded { }
    chain prerouting { type nat hook prerouting priority -100; jump mapped; }
    chain mapped { }
    chain postrouting { type nat hook postrouting priority 100; jump masked; meta nfproto ipv4 oifname "eth2" masquerade; }
    chain masked { }
}
"""
_SETTINGS = """
ext_ifname=eth2
listening_ip=eth0
listening_ip=eth1
enable_natpmp=%s
enable_upnp=%s
secure_mode=yes
min_lifetime=1
uuid=00000000-0000-0000-0000-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=forwarded
upnp_nat_chain=mapped
upnp_nat_postrouting_chain=masked
allow 1024-65535 192.168.0.0/16 1024-65535
"""
# Which first bytes on port 5351 are dropped: miniupnpd can't speak only one of PCP and NAT-PMP.
_DROPPED = {"PCP": 0, "NAT-PMP": 2}


@dataclass(slots=True)
class Home:
    """A host and its neighbour in another LAN of the same router, and a stranger on the other side."""

    router: Machine
    host: Machine
    neighbour: Machine
    stranger: Machine
    folder: Path
    _daemons: list[trio.Process] = field(default_factory=list)
    _ready: list[str] = field(default_factory=list)

    def mapping(
        self, *, lease: int = 600, secret: str = "", on: Machine | None = None
    ) -> AbstractAsyncContextManager[Running]:
        """Run a process that listens and maps its port. lease: seconds."""
        words = [sys.executable, str(PROCESS), str(PORT), str(lease), *([secret] if secret else [])]
        return running((on or self.host).command(*words))

    async def route(self) -> None:
        """Give the host its default routes."""
        await self.host.run("ip", "route", "add", "default", "via", ROUTER)
        await self.host.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")

    async def speak(self, protocols: Iterable[str] = ("PCP", "NAT-PMP", "UPnP")) -> None:
        """Lay the router's rules, and start what speaks these protocols."""
        spoken = set(protocols)
        datagrams = spoken & _DROPPED.keys()
        drops = [f"udp dport 5351 @th,64,8 {_DROPPED[protocol]} drop;" for protocol in datagrams]
        await self.lay("" if len(datagrams) == 2 else " ".join(drops))
        settings = _SETTINGS % ("yes" if datagrams else "no", "yes" if "UPnP" in spoken else "no")
        (self.folder / "miniupnpd.conf").write_text(settings)
        self._ready = ["Listening for NAT-PMP/PCP traffic"] * bool(datagrams) + ["HTTP listening"] * (
            "UPnP" in spoken
        )
        await self.start_daemon()

    async def lay(self, input_rules: str = "") -> None:
        """Load the rules anew, so that every mapping is gone."""
        rules = self.folder / "rules.nft"
        rules.write_text("flush ruleset\n" + _RULES % input_rules)
        await self.router.run("nft", "-f", str(rules))

    async def start_daemon(self) -> None:
        """Start miniupnpd and wait until it listens."""
        words = [
            need("miniupnpd"),
            "-d",
            "-f",
            str(self.folder / "miniupnpd.conf"),
            "-P",
            str(self.folder / "pid"),
        ]
        log = self.folder / f"log{len(self._daemons)}"
        with log.open("wb") as output:
            process = await trio.lowlevel.open_process(
                self.router.command(*words), stdout=output, stderr=output
            )
        self._daemons.append(process)
        deadline = trio.current_time() + READY_SECONDS
        while not all(line in log.read_text() for line in self._ready):
            assert process.poll() is None, log.read_text()
            assert trio.current_time() < deadline, log.read_text()
            await trio.sleep(0.01)

    async def renumber(self, *, is_told: bool) -> None:
        """Give the router another address outside. is_told: whether a script says so to miniupnpd, as DHCP clients have."""
        await self.router.run("ip", "address", "del", f"{OUTSIDE}/24", "dev", "eth2")
        await self.router.run("ip", "address", "add", f"{RENUMBERED}/24", "dev", "eth2")
        if is_told:
            self._daemons[-1].send_signal(signal.SIGUSR1)

    async def stop_daemon(self) -> None:
        """Kill miniupnpd, as if the power had gone."""
        for process in self._daemons:
            if process.poll() is None:
                process.kill()
            await process.wait()

    async def greeting(self, ip: str = OUTSIDE, port: int = PORT) -> str:
        """Connect as the stranger and return what the host says, nothing when it isn't reached."""
        code = (
            "import socket, sys\n"
            "try: print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).recv(9).decode(), end='')\n"
            "except OSError: pass"
        )
        return await self.stranger.run(sys.executable, "-ISc", code, ip, str(port))

    async def mapped(self) -> str:
        """Return the rules that miniupnpd has made."""
        chains = [
            await self.router.run("nft", "list", "chain", "inet", "filter", name)
            for name in ("mapped", "forwarded")
        ]
        return "\n".join(line for chain in chains for line in chain.splitlines() if "dport" in line)


@asynccontextmanager
async def open_home(outside: str = OUTSIDE) -> AsyncIterator[Home]:
    """Build a home until the block ends; the host has no default route yet, and the router says nothing."""
    need("nft")
    need("miniupnpd")
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_machine() as router,
            open_machine(router) as host,
            open_machine(router) as neighbour,
            open_machine(router) as stranger,
        ):
            await router.cable(f"{ROUTER}/24", (host, f"{HOST}/24"))
            await router.cable(f"{OTHER_ROUTER}/24", (neighbour, f"{NEIGHBOUR}/24"))
            await router.cable(f"{outside}/24", (stranger, f"{STRANGER}/24"))
            for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                await router.run("sh", "-c", f"echo 1 > /proc/sys/net/{switch}")
            for machine, address, device in (
                (router, "fe80::1/64", "eth0"),
                (router, "2a00:1234:7::1/64", "eth0"),
                (host, f"{HOST6}/64", "eth0"),
                (router, "2a00:1234:9::1/64", "eth2"),
                (stranger, f"{STRANGER6}/64", "eth0"),
            ):
                await machine.run("ip", "address", "add", address, "dev", device, "nodad")
            await stranger.run("ip", "-6", "route", "add", "default", "via", "2a00:1234:9::1")
            await neighbour.run("ip", "route", "add", "default", "via", OTHER_ROUTER)
            home = Home(router, host, neighbour, stranger, Path(folder))
            try:
                yield home
            finally:
                with trio.CancelScope(shield=True):
                    await home.stop_daemon()
