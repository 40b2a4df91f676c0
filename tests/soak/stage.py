"""Who plays: a relay, providers and consumers, of which some last and others are killed and come back."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tests.interop.peers import Running, running
from tests.interop.tunnels import tcp_address
from tests.tools import PT

if TYPE_CHECKING:
    from trio_typing import TaskStatus

_SHARED = ("--json", "--no-mdns", "--grace", "0")
_HERE = "/ip4/127.0.0.1/tcp/0"
_WAIT = "60"  # seconds that a new connection waits for a provider


class Actor:
    """A `pt` process, which starts again when it is killed.

    Args:
        name: what it is called in reports.
        home: the folder of its files.
        event: kind of the event that says that it is up.
        arguments: of `pt`.

    Attributes:
        kills: how often it was killed.
        said: the event that says that it is up, with what it says.
    """

    def __init__(self, name: str, home: Path, event: str, *arguments: str) -> None:
        self.name = name
        self.kills = 0
        self.said: dict[str, Any] = {}
        self._command = [*PT, *_SHARED, *arguments]
        self._home = home
        self._event = event
        self._process: Running | None = None

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Run it until cancelled; an end that nobody wanted is a failure."""
        has_started = False
        while True:
            kills = self.kills
            async with running(self._command, self._home) as self._process:
                self.said = await self._process.event(self._event)
                if not has_started:
                    task_status.started()
                    has_started = True
                await self._process.process.wait()
                if self.kills == kills:
                    raise AssertionError(f"{self.name} ended by itself:\n{self._process}")

    def kill(self) -> None:
        """Kill it, as a crash would."""
        assert self._process is not None
        self.kills += 1
        self._process.process.kill()

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    @property
    def resident(self) -> int:
        """Its memory, in bytes."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.process.pid


@dataclass
class Route:
    """A consumer and its provider.

    Attributes:
        number: by which the target knows it.
        is_whole: nobody has been killed, or everything is as before.
    """

    number: int
    name: str
    provider: Actor
    consumer: Actor
    is_whole: bool = True

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.consumer.said["local"].rpartition(":")[2])

    @property
    def kills(self) -> int:
        """How often an end of it was killed."""
        return self.provider.kills + self.consumer.kills


@dataclass(frozen=True, slots=True)
class Stage:
    """Everybody, and who of them lasts and who is killed in turn, by route."""

    routes: list[Route]
    lasting: list[Actor]
    mortal: list[tuple[Route, Actor]]


def _id(provider: str) -> tuple[str, str]:
    return "--id", f"soak-{provider}-7b1f0c9d24e85a63"


@asynccontextmanager
async def stage(home: Path, target: str) -> AsyncIterator[Stage]:
    """Start everybody, before a target."""
    async with trio.open_nursery() as nursery:

        async def start(name: str, event: str, *arguments: str) -> Actor:
            actor = Actor(name, home / name, event, *arguments)
            await nursery.start(actor.run)
            return actor

        async def provide(name: str, *options: str) -> Actor:
            return await start(f"provider, {name}", "ready", *options, "tcp", "--target", target, *_id(name))

        async def consume(name: str, of: str, *options: str, peer: tuple[str, ...] = ()) -> Actor:
            place = ("--port", "0", *_id(of), *peer)
            return await start(f"consumer, {name}", "listening", *options, "bind", *place)

        secret = home / "secret"
        secret.write_text(_id("relayed")[1] + "\n")
        relay = await start("relay", "relay", "relay", "--listen", _HERE, "--unlimited-id-file", str(secret))
        listening = ("--p2p-listen", _HERE)
        via = ("--wait", _WAIT, "--via", relay.said["via"])
        behind = (*via, "--relay-only")
        lasting = await provide("lasting", *listening, *via)
        found = await provide("found again", *listening, *via)
        relayed = await provide("relayed", *behind)
        over_tcp = ("--wait", _WAIT, "--transport", "tcp")
        peer = ("--peer", tcp_address(lasting.said))
        routes = [
            Route(0, "direct", lasting, await consume("lasting", "lasting", *over_tcp, peer=peer)),
            Route(1, "found", found, await consume("found again", "found again", *via)),
            Route(2, "new consumers", lasting, await consume("new", "lasting", *via)),
            Route(3, "relayed", relayed, await consume("relayed", "relayed", *behind)),
        ]
        yield Stage(
            routes,
            [relay, lasting, relayed, routes[0].consumer, routes[1].consumer],
            [(routes[1], found), (routes[2], routes[2].consumer), (routes[3], routes[3].consumer)],
        )
        nursery.cancel_scope.cancel()
