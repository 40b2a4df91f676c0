"""A private DHT of many nodes of mixed kinds as processes on loopback, and what becomes of it when some of them die."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.programs import Program, program
from tests.interop.build import GO, JS, RUST

PREFIX = "/private"
_GO, _RUST, _JS = 8, 4, 2  # foreign nodes; the others are ours, four to a process
_OURS_PER_PROCESS = 4
_LISTEN = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the network, and how many nodes it has."""

    process: Program
    nodes: int


@dataclass(frozen=True, slots=True)
class Network:
    """A running network: the address of its first node, and the processes, of which the first outlives the others."""

    entry: str
    members: list[Member]

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return sum(member.nodes for member in self.members)

    def silence(self, share: float) -> int:
        """Stop processes, spread over all kinds, with this share of the nodes, as if their machines hung; give the count."""
        stopped = 0
        step = max(1, round(1 / share) - 1)
        for member in self.members[1::step]:
            if stopped + member.nodes <= share * self.size:
                os.kill(member.process.pid, signal.SIGSTOP)
                stopped += member.nodes
        return stopped

    def kill(self, member: Member) -> None:
        """End a process at once."""
        os.kill(member.process.pid, signal.SIGKILL)


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Run a network of so many nodes; the foreign kinds are those that are built."""
    with ExitStack() as stack:

        def start(nodes: int, *command: str) -> Member:
            return Member(stack.enter_context(program([*command])), nodes)

        def ours(nodes: int, *entry: str) -> Member:
            return start(nodes, sys.executable, "-m", "tests.interop.dht_nodes", str(nodes), PREFIX, *entry)

        first = ours(1)
        entry = str(first.process.event("ready")["addresses"][0])
        go = [str(GO.binary), "relay", "--tcp-only", "--prefix", PREFIX, "--listen", _LISTEN]
        rust = [str(RUST.binary), "relay", "--kad-protocol", f"{PREFIX}/kad/1.0.0", "--listen", _LISTEN]
        members = [first]
        if GO.binary.exists():
            members += [start(1, *go, "--bootstrap", entry) for _ in range(_GO)]
        if RUST.binary.exists():
            members += [start(1, *rust, "--external", "--bootstrap", entry) for _ in range(_RUST)]
        if JS.binary.exists():
            members += [
                start(1, str(JS.binary), "serve", "--prefix", PREFIX, "--bootstrap", entry)
                for _ in range(_JS)
            ]
        while (missing := count - sum(member.nodes for member in members)) > 0:
            members.append(ours(min(missing, _OURS_PER_PROCESS), entry))
        for member in members:
            for number in range(member.nodes):
                member.process.event("ready", number)
        try:
            yield Network(entry, members)
        finally:
            for member in members:
                if member.process.is_running:
                    os.kill(member.process.pid, signal.SIGCONT)
