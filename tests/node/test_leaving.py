"""A provider that is asked to stop: its tunnels go on, and consumers look for another one, over TCP as over QUIC."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from peertunnel import sockets
from peertunnel.access import Access
from peertunnel.bind import bind
from peertunnel.config import Transports
from peertunnel.endpoints import TcpEndpoint
from peertunnel.events import ErrorOccurred, PathChanged, Ready
from peertunnel.expose import expose
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL, Node, NodeOptions, open_node
from peertunnel.protocols.service import Service
from peertunnel.transport import quic
from tests.clock import soon
from tests.node.pair import PATIENCE, Log, echo, target, until

BACK_SECONDS = 3.0  # after which a provider that has returned serves again
LINES: list[Transports] = ["tcp"] if quic.why_not() is not None else ["tcp", "quic"]
over = pytest.mark.parametrize("transport", LINES)
whom = pytest.mark.parametrize("root", [None, b"r" * 32], ids=["everybody", "who knows"])


@dataclass
class Provider:
    """A running provider, and how it is asked to stop."""

    node: Node
    log: Log = field(default_factory=Log)
    stop: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)


@dataclass
class Consumer:
    """A running consumer."""

    node: Node
    port: int
    log: Log = field(default_factory=Log)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def has_lost(self) -> None:
        await until(lambda: [event.path for event in self.log.all(PathChanged)][-1:] == ["none"])


def place(transport: Transports, port: int = 0) -> str:
    """Give a multiaddr on loopback, at a port that is free."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", port))
        number = free.getsockname()[1]
    return f"/ip4/127.0.0.1/{f'tcp/{number}' if transport == 'tcp' else f'udp/{number}/quic-v1'}"


@asynccontextmanager
async def provider(identity: Identity, where: str, root: bytes | None, port: int) -> AsyncIterator[Provider]:
    """Run a provider of a port, which stops in its own time when it is asked to."""
    transport: Transports = "tcp" if "/tcp/" in where else "quic"
    options = NodeOptions(identity=identity, listen=(where,), mdns=False, transport=transport)
    started: list[Provider] = []
    ready = trio.Event()

    async def provide() -> None:
        async with open_node(options) as node:
            running = Provider(node)
            started.append(running)
            ready.set()
            service = Service("service", root, is_public=root is None)
            rules, end = Access(is_public=root is None), TcpEndpoint(None, port)
            await expose(node, service, end, running.log, access=rules, grace=PATIENCE, stop=running.stop)
        running.gone.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(provide)
        await ready.wait()
        await started[0].log.wait(Ready)
        yield started[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def consumer(peer_id: str, places: list[str], root: bytes | None) -> AsyncIterator[Consumer]:
    """Run a consumer of a provider at any of these places."""
    listeners = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
    service = Service("service", root).with_addresses([f"{each}/p2p/{peer_id}" for each in places])
    options = NodeOptions(identity=Identity.ephemeral(), listen=(), mdns=False)
    async with open_node(options) as node, trio.open_nursery() as nursery:
        running = Consumer(node, listeners[0].getsockname()[1])

        async def consume() -> None:
            await bind(node, service, listeners, running.log, wait=PATIENCE, grace=0, stop=trio.Event())

        nursery.start_soon(consume)
        yield running
        nursery.cancel_scope.cancel()


async def bounce(client: trio.SocketStream, word: bytes = b"hello") -> None:
    """Have a word echoed."""
    await client.send_all(word)
    with trio.fail_after(PATIENCE):
        assert await client.receive_some() == word


@whom
@over
async def test_new_connections_wait_for_the_provider_that_returns(
    transport: Transports, root: bytes | None
) -> None:
    identity, first = Identity.ephemeral(), place(transport)
    second = first if transport == "tcp" else place(transport)  # the running tunnel needs the UDP port
    async with (
        target(echo) as port,
        provider(identity, first, root, port) as leaving,
        consumer(identity.peer_id, [first, second], root) as near,
    ):
        running = await near.connect()
        await bounce(running)
        leaving.stop.set()
        await near.has_lost()
        late = await near.connect()
        await late.send_all(b"late")
        async with provider(identity, second, root, port):
            async with soon(BACK_SECONDS):
                assert await late.receive_some() == b"late"
            await bounce(running)
            await running.send_eof()
            with trio.fail_after(PATIENCE):
                assert await running.receive_some() == b""
                await leaving.gone.wait()
            await bounce(late)
        assert not near.log.all(ErrorOccurred)


@whom
@over
async def test_nothing_that_is_opened_meanwhile_is_lost(transport: Transports, root: bytes | None) -> None:
    identity, where = Identity.ephemeral(), place(transport)
    async with (
        target(echo) as port,
        provider(identity, where, root, port) as leaving,
        consumer(identity.peer_id, [where], root) as near,
    ):
        running = await near.connect()
        await bounce(running)
        leaving.stop.set()
        await bounce(await near.connect())  # the consumer has not heard of it yet
        await near.has_lost()
        await bounce(running)


@over
async def test_a_connection_without_tunnels_is_closed_at_once_and_others_after_their_last_one(
    transport: Transports,
) -> None:
    """Also to those who make nothing of what they are told, as foreign peers do."""
    identity, where = Identity.ephemeral(), place(transport)
    async with (
        target(echo) as port,
        provider(identity, where, None, port) as leaving,
        consumer(identity.peer_id, [where], None) as near,
        open_host(Identity.ephemeral(), ()) as other,
    ):
        running = await near.connect()
        await bounce(running)
        address = f"{where}/p2p/{identity.peer_id}"
        busy, idle = [await other.dial(identity.peer_id, [address], PATIENCE) for _ in range(2)]
        stream = await busy.open_tunnel(TUNNEL)
        await stream.write(b"hello")
        assert await stream.read(5) == b"hello"
        leaving.stop.set()
        with trio.fail_after(PATIENCE / 2):  # long before the grace ends
            await idle.event_closed.wait()
            assert not busy.is_closed
            await stream.close_write()
            with pytest.raises(MuxedStreamEOF):
                await stream.read()
            await busy.event_closed.wait()
        await bounce(running)
        assert not leaving.gone.is_set()
