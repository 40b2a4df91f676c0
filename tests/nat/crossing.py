"""A tunnel from behind one router to behind another: relay, provider, target, consumer and client, each in its place."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.nat.lab.kinds import Kind, Nat, Public
from tests.nat.lab.lab import PUBLIC, Lab
from tests.nat.lab.machines import Machine
from tests.nat.makes import DIRECT, Make, Place, Step, listening
from tests.nat.recorded import Recorded, recorded

BYTE_SECONDS = 30.0  # until the first byte is back
ANSWER_SECONDS = 10.0  # for one try of it
RETRY_SECONDS = 0.05

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Trio:
    """Who takes part."""

    provider: Make
    consumer: Make
    relay: Make
    unlimited: bool = False

    def __str__(self) -> str:
        return f"{self.provider.name} to {self.consumer.name} through a relay of {self.relay.name}"


@dataclass(frozen=True, slots=True)
class Site:
    """A relay, and a provider that a consumer can reach by it; `folder` is for what processes keep."""

    lab: Lab
    parties: Trio
    place: Place
    relay: Recorded
    provider: Recorded
    folder: Path

    @property
    def peer_id(self) -> str:
        """The provider's."""
        return str(self.provider.past("ready")[0].fields["peer_id"])


@asynccontextmanager
async def open_lab(
    nats: Mapping[str, Nat | Kind], public: Mapping[str, Public] = PUBLIC
) -> AsyncIterator[Lab]:
    """Run a lab without keeping others waiting."""
    lab = Lab(nats, public)
    await trio.to_thread.run_sync(lab.__enter__)
    try:
        yield lab
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lab.close)


@asynccontextmanager
async def relaying(lab: Lab, parties: Trio, folder: Path) -> AsyncIterator[tuple[Place, Recorded]]:
    """Run the relay on the public machine."""
    machine, make = lab.host("relay"), parties.relay
    async with recorded(make.relay(machine, parties.unlimited), folder / "relay") as relay:
        peer_id = (await relay.event("ready")).fields["peer_id"]
        # A peer may speak less than the relay, or prefer something else.
        spoken = [it for it in parties.provider.transports if it in make.transports]
        addresses = [f"{address}/p2p/{peer_id}" for address in listening(machine.ip, tuple(spoken))]
        yield Place(make.name, peer_id, addresses), relay


@asynccontextmanager
async def serving(
    lab: Lab, parties: Trio, folder: Path, behind: str = "provider", serve: Serve | None = None
) -> AsyncIterator[Site]:
    """Run a relay, and a provider behind a router, with something to tunnel to beside it: what echoes, or `serve`."""
    machine = lab.host(behind)
    async with relaying(lab, parties, folder) as (place, relay), target_on(machine, serve or _echo) as target:
        command = parties.provider.provider(machine, place, target)
        async with recorded(command, folder / "provider") as provider:
            with trio.fail_after(BYTE_SECONDS):
                await parties.provider.reachable(provider)
            yield Site(lab, parties, place, relay, provider, folder)


@asynccontextmanager
async def consuming(site: Site, machine: Machine) -> AsyncIterator["Crossing"]:
    """Run a consumer behind a router."""
    make, provider = site.parties.consumer, site.parties.provider
    command = make.consumer(machine, site.place, site.peer_id, provider.name)
    async with recorded(command, site.folder / machine.name) as consumer:
        yield Crossing(site, machine, consumer)


@asynccontextmanager
async def crossing(parties: Trio, provider: Nat, consumer: Nat, folder: Path) -> AsyncIterator["Crossing"]:
    """Run everything for one tunnel, in a lab of its own, until a first byte has come back."""
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(open_lab({"provider": provider, "consumer": consumer}))
        site = await stack.enter_async_context(serving(lab, parties, folder))
        opened = await stack.enter_async_context(consuming(site, lab.host("consumer")))
        await opened.first_byte()
        yield opened


@asynccontextmanager
async def target_on(machine: Machine, answer: Serve) -> AsyncIterator[str]:
    """Serve a port of a machine's own loopback until the block ends."""
    with machine.socket(socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()
        async with trio.open_nursery() as nursery:
            serve = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            nursery.start_soon(trio.serve_listeners, answer, [serve])
            yield f"{host}:{port}"
            nursery.cancel_scope.cancel()


async def _echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


class Crossing:
    """A consumer at work, and its path."""

    def __init__(self, site: Site, machine: Machine, consumer: Recorded) -> None:
        self.site = site
        self.machine = machine
        self.consumer = consumer

    async def connect(self) -> trio.SocketStream:
        """Open a tunnel: connect to the consumer's local port from its own machine."""
        host, _, port = (await self.consumer.event("listening")).fields["local"].rpartition(":")
        client = trio.socket.from_stdlib_socket(self.machine.socket(socket.SOCK_STREAM))
        try:
            await client.connect((host, int(port)))
        except OSError:
            client.close()
            raise
        return trio.SocketStream(client)

    async def first_byte(self, seconds: float = BYTE_SECONDS) -> float:
        """Open tunnels until a byte comes back, and tell when that was, in seconds after the consumer's start."""
        return await self.byte(seconds) - self.consumer.started

    async def byte(self, seconds: float, every: float = BYTE_SECONDS) -> float:
        """Open a tunnel `every` so many seconds, or when one has failed, until a byte comes back; tells trio's time.

        Raises AssertionError when none has come within some seconds.
        """
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                done = trio.Event()
                nursery.start_soon(self._ask_often, every, done)
                await done.wait()
                nursery.cancel_scope.cancel()
            return trio.current_time()
        raise AssertionError(f"no byte within {seconds} s:\n{self.consumer}\n{self.site.provider}")

    async def _ask_often(self, every: float, done: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                failed = trio.Event()
                nursery.start_soon(self._ask, failed, done)
                with trio.move_on_after(every):
                    await failed.wait()
                await trio.sleep(RETRY_SECONDS)

    async def _ask(self, failed: trio.Event, done: trio.Event) -> None:
        (done if await self._byte() else failed).set()

    async def _byte(self) -> bool:
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                async with await self.connect() as stream:
                    await stream.send_all(b"?")
                    return await stream.receive_some(1) == b"?"
        except (OSError, trio.BrokenResourceError):
            pass
        return False

    def steps(self) -> list[Step]:
        """Return how the path has changed."""
        return self.site.parties.consumer.steps(self.consumer, self.site.peer_id)

    async def direct(self, seconds: float) -> Step | None:
        """Wait for a direct path for so many seconds after the first path, and give it."""
        with trio.move_on_after(seconds):
            while True:
                for step in self.steps():
                    if step.path in DIRECT:
                        return step
                await self.consumer.news()
        return None
