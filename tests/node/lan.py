"""Machines with networks of their own: Linux namespaces, made without root where the system allows it."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from tests.interop.peers import Running, running
from tests.tools import need, need_namespaces

PROCESS = Path(__file__).with_name("mdns_process.py")


class Machine:
    """A network namespace with nothing but loopback, until a cable is plugged in."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._names = (f"eth{number}" for number in itertools.count())

    def command(self, *words: str) -> list[str]:
        """Give the command that runs another one on this machine."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.pid}", *user, "--net", *words]

    async def run(self, *words: str) -> str:
        """Run a command to its end and give what it printed."""
        done = await trio.run_process(self.command(*words), capture_stdout=True)
        return done.stdout.decode()

    async def addresses(self) -> list[str]:
        """Give the IP addresses that peertunnel sees."""
        code = (
            "import json; from peertunnel.interfaces import interface_addresses;"
            "print(json.dumps([str(address.ip) for address in interface_addresses()]))"
        )
        return list(json.loads(await self.run(sys.executable, "-c", code)))

    async def cable(self, ip: str, other: "tuple[Machine, str] | None" = None) -> "Cable":
        """Plug in a cable, to another machine at an address or to nobody; ip has the prefix's length."""
        far, far_ip = other or (self, None)
        cable = Cable(self, next(self._names), far, next(far._names))
        await self.run(
            *("ip", "link", "add", cable.name, "type", "veth"),
            *("peer", "name", cable.far_name, "netns", str(far.pid)),
        )
        await self.run("ip", "address", "add", ip, "dev", cable.name)
        if far_ip is not None:
            await far.run("ip", "address", "add", far_ip, "dev", cable.far_name)
        await cable.up()
        return cable

    def announcing(self, peer_id: str, root: bytes, *listen: str) -> AbstractAsyncContextManager[Running]:
        """Run a process that announces a peer with these listening addresses."""
        command = self.command(sys.executable, str(PROCESS), "announce", peer_id, root.hex(), *listen)
        return running(command)

    def finding_peer(self, peer_id: str) -> AbstractAsyncContextManager[Running]:
        """Run a process that prints each sighting of a peer as a candidate."""
        return running(self.command(sys.executable, str(PROCESS), "find-peer", peer_id))

    def finding(self, root: bytes) -> AbstractAsyncContextManager[Running]:
        """Run a process that prints each candidate for a service."""
        return running(self.command(sys.executable, str(PROCESS), "find", root.hex()))


class Cable:
    """A pair of interfaces, each the other's only neighbour."""

    def __init__(self, near: Machine, name: str, far: Machine, far_name: str) -> None:
        self.name, self.far_name = name, far_name
        self._ends = ((near, name), (far, far_name))

    async def up(self) -> None:
        """Take both interfaces up."""
        for machine, name in self._ends:
            await machine.run("ip", "link", "set", name, "up")

    async def down(self) -> None:
        """Take both interfaces down."""
        for machine, name in self._ends:
            await machine.run("ip", "link", "set", name, "down")


@asynccontextmanager
async def open_machine(neighbour: Machine | None = None) -> AsyncIterator[Machine]:
    """Run a machine until the block ends; cables join it to its neighbour."""
    for tool in ("ip", "nsenter", "unshare"):
        need(tool)
    if os.geteuid() != 0:
        need_namespaces()
    enter = neighbour.command() if neighbour else []
    become_root = [] if os.geteuid() == 0 or neighbour else ["--map-root-user"]
    holder = await trio.lowlevel.open_process(
        [*enter, "unshare", *become_root, "--net", "sh", "-c", "ip link set lo up && echo && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    async with holder.stdin, holder.stdout:
        assert await holder.stdout.receive_some(1) == b"\n", "no namespace"
        yield Machine(holder.pid)
    with trio.CancelScope(shield=True):
        await holder.wait()
