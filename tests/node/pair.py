"""Two nodes in one process and a tunnel between them, over real sockets on loopback."""

import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import trio

from peertunnel import sockets
from peertunnel.access import Access
from peertunnel.bind import bind
from peertunnel.endpoints import TcpEndpoint
from peertunnel.events import Event, Ready
from peertunnel.expose import expose
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.yamux import YamuxConnection

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
PATIENCE = 20.0  # seconds before a test gives up waiting for something that must happen
Handler = Callable[[trio.SocketStream], Awaitable[None]]
E = TypeVar("E", bound=Event)


class Log:
    """Takes the events of one side, and waits for some."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = trio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind: type[E], count: int = 1) -> list[E]:
        """Wait until there are `count` events of a kind."""
        with trio.fail_after(PATIENCE):
            while len(found := self.all(kind)) < count:
                await self._news.wait()
        return found


@dataclass
class Pair:
    """A provider and a consumer that are up."""

    provider: Node
    consumer: Node
    port: int
    stop_provider: trio.Event
    stop_consumer: trio.Event
    provider_log: Log = field(default_factory=Log)
    consumer_log: Log = field(default_factory=Log)

    async def connect(self) -> trio.SocketStream:
        """Open a connection to the consumer's local port, which the system makes at once: it may be reset as soon."""
        await trio.lowlevel.checkpoint()
        sock = socket.create_connection(("127.0.0.1", self.port))
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


@asynccontextmanager
async def target(handler: Handler) -> AsyncIterator[int]:
    """Serve a target; yield its port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handler, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def node(listen: tuple[str, ...] = LOOPBACK) -> AsyncIterator[Node]:
    """Run a node that nobody else finds."""
    async with open_node(NodeOptions(identity=Identity.ephemeral(), listen=listen, mdns=False)) as running:
        yield running


@asynccontextmanager
async def pair(target_port: int, wait: float = PATIENCE, grace: float = 0.0) -> AsyncIterator[Pair]:
    """Run a provider of a port and a consumer of it."""
    async with node() as provider, node(()) as consumer, trio.open_nursery() as nursery:
        joined = Pair(provider, consumer, 0, trio.Event(), trio.Event())
        service = Service.from_addresses(provider.addresses)

        async def provide() -> None:
            endpoint, stop = TcpEndpoint(None, target_port), joined.stop_provider
            log, everybody = joined.provider_log, Access(is_public=True)
            await expose(provider, service, endpoint, log, access=everybody, grace=grace, stop=stop)

        listeners = await sockets.listen(TcpEndpoint("127.0.0.1", 0))

        async def consume() -> None:
            log, stop = joined.consumer_log, joined.stop_consumer
            await bind(consumer, service, listeners, log, wait=wait, grace=grace, stop=stop)

        nursery.start_soon(provide)
        await joined.provider_log.wait(Ready)
        nursery.start_soon(consume)
        joined.port = listeners[0].getsockname()[1]
        yield joined
        nursery.cancel_scope.cancel()


def other_address() -> str:
    """Give an address of this machine that is not on loopback, where a dial looks as it does to another machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(sock.getsockname()[0])


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so that tells nobody when it changes."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, and the end of it."""
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass  # the client has seen enough


async def receive_all(stream: trio.SocketStream) -> bytes:
    """Receive to the end of the stream."""
    return b"".join([data async for data in stream])


def reset(stream: trio.SocketStream) -> None:
    """Close a connection with RST."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def yamux_of(connection: MuxedConnection) -> YamuxConnection:
    """Give a connection as one over yamux, for tests that reach into it."""
    assert isinstance(connection, YamuxConnection)
    return connection


@contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open nothing more: no socket, no file."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for file in taken:
            os.close(file)
