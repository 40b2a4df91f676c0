"""Rendezvous points, and who announces and seeks there, over real connections on loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from peertunnel.discovery import Announcement
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.discovery.rendezvous_server import RendezvousServer
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.service import Service

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
PLACES = ("/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7/tcp/2")
SERVICE = Service("a service", b"r" * 32)
PATIENCE = 20  # seconds, on a busy machine
RECOVERY = 10  # seconds in which what has returned is to be found again


@asynccontextmanager
async def host(listen: tuple[str, ...] = (), seed: bytes = b"") -> AsyncIterator[Host]:
    async with open_host(Identity(seed) if seed else Identity.ephemeral(), listen) as running:
        yield running


@asynccontextmanager
async def point(listen: tuple[str, ...] = LOOPBACK) -> AsyncIterator[tuple[Host, RendezvousServer]]:
    """Run a rendezvous point, the same one each time."""
    async with host(listen, b"p" * 32) as running, trio.open_nursery() as nursery:
        server = RendezvousServer(running)
        await nursery.start(server.run)
        yield running, server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def source(peers: Host, *points: str) -> AsyncIterator[Rendezvous]:
    async with trio.open_nursery() as nursery:
        found = Rendezvous(peers, points)
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def announced(
    peers: Host, *points: str, addresses: Callable[[], tuple[str, ...]] | None = None
) -> AsyncIterator[None]:
    """Announce the service's topics of the first day until the block ends."""
    told = addresses or (lambda: tuple(f"{place}/p2p/{peers.peer_id}" for place in PLACES))
    announcement = Announcement(peers.peer_id, told, lambda: SERVICE.topics_to_publish(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Rendezvous(peers, points).announce, announcement)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = trio.current_time() + seconds
    while not condition():
        assert trio.current_time() < deadline
        await trio.sleep(0.02)
