"""Small DHTs of real hosts on loopback, all in one process."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.dht import Dht
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.service import Service

HERE = ("/ip4/127.0.0.1/tcp/0",)
PREFIX = "/test"
PATIENCE = 20.0  # seconds for what takes far less than one on an idle machine


class Peer:
    """A host with a DHT that runs."""

    def __init__(self, host: Host, dht: Dht, nursery: trio.Nursery) -> None:
        self.host = host
        self.dht = dht
        self.nursery = nursery

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.host.addresses[0]

    def announcement(self, service: Service) -> Announcement:
        """What it tells when it provides a service."""
        return Announcement(
            self.host.peer_id, lambda: self.host.addresses, lambda: service.topics_to_publish(time.time())
        )

    def provide(self, service: Service) -> None:
        """Announce a service from now on."""
        self.nursery.start_soon(self.dht.announce, self.announcement(service))

    @property
    def candidate(self) -> Candidate:
        """What others should find."""
        return Candidate(self.host.peer_id, self.host.addresses, "dht")


@asynccontextmanager
async def peer(
    *bootstrap: str,
    server: bool = True,
    prefix: str = PREFIX,
    listen: tuple[str, ...] = HERE,
    identity: Identity | None = None,
) -> AsyncIterator[Peer]:
    """Run a peer until the block ends."""
    async with open_host(identity or Identity.ephemeral(), listen) as host, trio.open_nursery() as nursery:
        dht = Dht(host, bootstrap, prefix=prefix, server=server)
        nursery.start_soon(dht.run)
        yield Peer(host, dht, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def network(count: int) -> AsyncIterator[list[Peer]]:
    """Run a network in which everybody has heard of everybody."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer())]
        for _ in range(count - 1):
            peers.append(await stack.enter_async_context(peer(peers[0].address)))
        await until(lambda: all(member.dht.size == count - 1 for member in peers))
        yield peers


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that is about to be so."""
    with trio.fail_after(PATIENCE):
        while not is_so():  # noqa: ASYNC110  it has no event to wait for
            await trio.sleep(0.02)
