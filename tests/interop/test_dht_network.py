"""Finding each other in a network of 40 DHT nodes, ours, Go's, Rust's and JavaScript's: all well, many dead, and strangers on the topic."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from peertunnel.access import Access
from peertunnel.endpoints import TcpEndpoint
from peertunnel.events import Ready
from peertunnel.expose import expose
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.protocols.kademlia.distance import position
from peertunnel.protocols.peerid import multihash_of
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import dht_key
from tests.interop.dht_network import PREFIX, Member, Network, network
from tests.node.dht import peer
from tests.node.pair import LOOPBACK, Log

NODES = 40
SEARCHES = 20
PATIENCE = 60.0  # seconds, for a search or for a record to be spread, before a test gives up
WELL, ILL = 3.0, 6.0  # seconds wanted of 95 % of the searches
HOSTILE = 10

pytestmark = pytest.mark.alone
SILENT = 0.3  # of the nodes


@pytest.fixture
def _peers(gopeer: Path, rspeer: Path, jspeer: Path) -> None:
    """The foreign nodes are built."""


def p95(seconds: list[float]) -> float:
    """Give what 95 % of the times don't exceed."""
    return sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]


@asynccontextmanager
async def member(entry: str) -> AsyncIterator[Node]:
    """Run a client of the network."""
    who = Identity.ephemeral()
    options = NodeOptions(
        identity=who, listen=LOOPBACK, mdns=False, dht=True, bootstrap=(entry,), dht_prefix=PREFIX
    )
    async with open_node(options) as node:
        yield node


@asynccontextmanager
async def providers(entry: str, services: list[Service]) -> AsyncIterator[list[Node]]:
    """Provide each service, to those who know its secret, from a node of its own."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(member(entry)) for _ in services]
        nursery = await stack.enter_async_context(trio.open_nursery())  # ends before the nodes do
        stack.callback(nursery.cancel_scope.cancel)
        for node, service in zip(nodes, services, strict=True):
            log = Log()

            async def provide(node: Node = node, service: Service = service, log: Log = log) -> None:
                nowhere, stop = TcpEndpoint(None, 1), trio.Event()
                await expose(node, service, nowhere, log, access=Access(), grace=0, stop=stop)

            nursery.start_soon(provide)
            await log.wait(Ready)
        yield nodes


async def searched(entry: str, service: Service, wanted: Node) -> float:
    """Start a consumer, and give the seconds until it has met the provider, proof and all."""
    began = trio.current_time()
    with trio.fail_after(PATIENCE):
        async with member(entry) as consumer:
            connection = await consumer.meet(service, Log(), lambda refusal: None)
            assert str(connection.peer_id) == wanted.peer_id
            return trio.current_time() - began


def services(count: int) -> list[Service]:
    """Make services that are each somewhere else in the key space."""
    return [Service(f"service {number}", number.to_bytes(32)) for number in range(count)]


async def spread(entry: str, service: Service) -> None:
    """Wait until a record has got into the network."""
    with trio.fail_after(PATIENCE):
        async with peer(entry, prefix=PREFIX, server=False) as client:
            with client.dht.find(service) as channel:
                await channel.receive()


@pytest.mark.usefixtures("_peers")
async def test_all_alive() -> None:
    wanted = services(SEARCHES)
    with network(NODES) as net:
        async with providers(net.entry, wanted) as nodes:
            for service in wanted:
                await spread(net.entry, service)
            took = [
                await searched(net.entry, service, node) for service, node in zip(wanted, nodes, strict=True)
            ]
    assert p95(took) <= WELL, took


@pytest.mark.usefixtures("_peers")
async def test_many_dead_and_strangers_on_the_topic() -> None:
    wanted = services(SEARCHES // 2)
    with network(NODES) as net:
        async with providers(net.entry, wanted) as nodes, AsyncExitStack() as stack:
            for _ in range(HOSTILE):
                stranger = await stack.enter_async_context(peer(net.entry, prefix=PREFIX, server=False))
                for service in wanted:
                    stranger.provide(service)
            for service in wanted:
                await spread(net.entry, service)
            assert net.silence(SILENT) >= 0.25 * net.size
            took = [
                await searched(net.entry, service, node) for service, node in zip(wanted, nodes, strict=True)
            ]
    assert p95(took) <= ILL, took


def holder(net: Network, service: Service) -> Member:
    """Give the process, but for the first, whose node is closest to a service's topic of today."""
    key = position(dht_key(service.topics_to_publish(time.time())[0]))

    def closest(member: Member) -> int:
        ready = [member.process.event("ready", number) for number in range(member.nodes)]
        ids = [event["addresses"][0].rpartition("/p2p/")[2] for event in ready]
        return min(position(multihash_of(peer_id)) ^ key for peer_id in ids)

    return min(net.members[1:], key=closest)


@pytest.mark.usefixtures("_peers")
async def test_the_node_that_held_the_record_dies() -> None:
    (service,) = services(1)
    with network(NODES) as net:
        async with providers(net.entry, [service]) as (node,):
            await spread(net.entry, service)
            net.kill(holder(net, service))
            assert await searched(net.entry, service, node) <= ILL
