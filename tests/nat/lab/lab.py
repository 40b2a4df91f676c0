"""A lab: the internet, public machines, routers and what is behind them, until the block ends.

    with Lab({"alice": "cone", "bob": Nat("symmetric", delay_ms=20)}) as lab:
        relay = lab.host("relay")
        server = relay.popen("server", relay.ip)
        lab.router("bob").wan_down()

Everything lies in namespaces <prefix>-<name>, and no route leads out of them, so any number of labs run side by side
with the same addresses.
"""

import atexit
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.nat.lab import remains
from tests.nat.lab.keeper import Keeper
from tests.nat.lab.kinds import LOOKALIKES, SINKS, Kind, Nat, Plan, Public
from tests.nat.lab.layout import Layout
from tests.nat.lab.links import Link
from tests.nat.lab.machines import Machine, Router
from tests.nat.lab.namespaces import TOOLS
from tests.nat.lab.readiness import wait_echoes, wait_links
from tests.tools import lack

PUBLIC = {"relay": Public()}


class Lab:
    """Routers by the name of the first machine behind each, and public machines by name."""

    def __init__(
        self,
        nats: Mapping[str, Nat | Kind],
        public: Mapping[str, Public] = PUBLIC,
        plan: Plan | None = None,
    ) -> None:
        self.nats = {name: nat if isinstance(nat, Nat) else Nat(kind=nat) for name, nat in nats.items()}
        self.public = dict(public)
        self.prefix = f"nl{os.getpid():x}{secrets.token_hex(2)}"
        with_upnp = any(nat.upnp for nat in self.nats.values())
        self.layout = Layout(self.prefix, plan or (LOOKALIKES if with_upnp else SINKS))
        self._owner = os.getpid()
        self._keeper: Keeper | None = None

    def host(self, name: str) -> Machine:
        """Return a public machine, or one behind a router: "alice", and with more hosts "alice2" and so on."""
        return self.layout.machines[name]

    def router(self, name: str) -> Router:
        """Return the router that a machine is behind."""
        return self._router(f"nat-{name}")

    def carrier(self, name: str) -> Router:
        """Return the provider's router that a machine's own is behind."""
        return self._router(f"carrier-{name}")

    def link(self, name: str) -> Link:
        """Return the link to the internet of a public machine, or of the outermost router before another one."""
        places = [self.prefix + f"-{kind}{name}" for kind in ("carrier-", "nat-", "")]
        return next(link for place in places for link in self.layout.links if link.namespace == place)

    def _router(self, name: str) -> Router:
        router = self.layout.machines[name]
        assert isinstance(router, Router)
        return router

    def __enter__(self) -> Self:
        self._require()
        remains.sweep()
        with ExitStack() as stack:
            stack.callback(self.close)
            self._build()
            stack.pop_all()
        atexit.register(self.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the lab and delete it; safe to call again, and without effect in a forked process."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        if self._keeper is not None:
            self._keeper.close()
        remains.remove(self.prefix)

    def lacking(self) -> str | None:
        """Tell why this lab can't be built on this machine, or None."""
        wires = [*self.nats.values(), *self.public.values()]
        tools = ["ip", "nft", "nsenter", "conntrack"]
        tools += ["tc"] if any(wire.rate for wire in wires) else []
        tools += ["miniupnpd"] if any(nat.upnp for nat in self.nats.values()) else []
        if os.geteuid():
            return "the NAT laboratory needs root"
        for tool in tools:
            if not shutil.which(tool, path=TOOLS):
                return f"{tool} is not installed"
        if any(wire.delayed for wire in wires) and not Path("/dev/net/tun").exists():
            return "/dev/net/tun is missing"
        return None

    def _require(self) -> None:
        if reason := self.lacking():
            lack(reason)

    def _build(self) -> None:
        self.layout.name(self.nats, self.public)
        remains.note(self.prefix)
        with remains.alone():
            self.layout.create()
        self.layout.lay(self.nats, self.public)
        self._keeper = Keeper(self.prefix, self.layout.slow)
        self.layout.build()
        for link in self.layout.links:
            link.keeper = self._keeper
            link.load()
        wait_links(self.layout)
        for machine in self.layout.machines.values():
            if isinstance(machine, Router):
                machine.start()
        self._keeper.wait_ready()
        wait_echoes(self.layout)
