"""A source that everybody in a process shares, and nodes that have no other."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from peertunnel.access import Access
from peertunnel.discovery import Announcement, Candidate
from peertunnel.endpoints import TcpEndpoint
from peertunnel.events import Ready
from peertunnel.expose import expose
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL, Node, NodeOptions
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import LOOPBACK, Log, echo, target

ROOT = b"r" * 32
SERVICE = Service("service", ROOT)


class Board:
    """A source that everybody shares: what is announced under a topic is found under it."""

    name = "the board"

    def __init__(self) -> None:
        self.posted: dict[bytes, list[Candidate]] = {}
        self._readers: list[tuple[Service, trio.MemorySendChannel[Candidate]]] = []

    async def announce(self, announcement: Announcement) -> None:
        """Post an announcement until cancelled."""
        mine = [
            (topic, Candidate(announcement.peer_id, announcement.addresses(), "board"))
            for topic in announcement.topics()
        ]
        for topic, candidate in mine:
            self.post(topic, candidate)
        try:
            await trio.sleep_forever()
        finally:
            for topic, candidate in mine:
                self.posted[topic].remove(candidate)

    def post(self, topic: bytes, candidate: Candidate) -> None:
        """Post a candidate."""
        self.posted.setdefault(topic, []).append(candidate)
        for service, channel in self._readers:
            if topic in service.topics_to_search(now()):
                with contextlib.suppress(trio.BrokenResourceError):  # whoever read has met somebody
                    channel.send_nowait(candidate)

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Give what is posted now and later."""
        send, receive = trio.open_memory_channel[Candidate](1 << 16)
        for topic in service.topics_to_search(now()):
            for candidate in self.posted.get(topic, ()):
                send.send_nowait(candidate)
        self._readers.append((service, send))
        return receive


def now() -> float:
    return 1_800_000_000.0


@asynccontextmanager
async def node_on(
    board: Board, listen: tuple[str, ...] = LOOPBACK, identity: Identity | None = None, **options: object
) -> AsyncIterator[Node]:
    """Run a node whose only source is the board."""
    who = identity or Identity.ephemeral()
    async with open_host(who, listen) as host:
        yield Node(host, (board,), NodeOptions(identity=who, **options))  # type: ignore[arg-type]


@asynccontextmanager
async def provider_on(
    board: Board, listen: tuple[str, ...] = LOOPBACK, identity: Identity | None = None
) -> AsyncIterator[Node]:
    """Run a provider of an echo."""
    async with target(echo) as port, node_on(board, listen, identity) as node, trio.open_nursery() as nursery:
        log = Log()

        async def provide() -> None:
            place = TcpEndpoint(None, port)
            await expose(node, SERVICE, place, log, access=Access(), grace=0, stop=trio.Event())

        nursery.start_soon(provide)
        await log.wait(Ready)
        yield node
        nursery.cancel_scope.cancel()


async def is_served(connection: MuxedConnection) -> bool:
    """Return whether a tunnel carries bytes there and back."""
    stream = await connection.open_tunnel(TUNNEL)
    await stream.write(b"hello")
    return await stream.read(5) == b"hello"


@asynccontextmanager
async def squatter(accept: Callable[[Host], None] = lambda host: None) -> AsyncIterator[Host]:
    """Run a peer that listens and knows no secret."""
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        accept(host)
        yield host
