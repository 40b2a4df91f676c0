"""Who calls a DHT node is asked what it is, and those that don't say it keep nobody else out of the routing table."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from peertunnel.discovery import dht_membership
from peertunnel.discovery.dht_contacts import id_bytes
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.identify import PROTOCOL as IDENTIFY
from peertunnel.protocols.kademlia.messages import MAX_ANSWER, Message, Type, encode
from peertunnel.transport.stream import MuxedStream
from tests.node.dht import PATIENCE, PREFIX, Peer, peer
from tests.node.pair import other_address, until

EVERYWHERE = ("/ip4/0.0.0.0/tcp/0",)
SILENT = 3


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is given up in a test."""
    monkeypatch.setattr(dht_membership, "_IDENTIFYING", 3 * PATIENCE)


async def call(caller: Host, node: Peer, ip: str = "127.0.0.1") -> None:
    """Ask a node something, whereupon it may ask what the caller is."""
    address = f"/ip4/{ip}/tcp/{node.host.listening[0].rpartition('/')[2]}"
    request = encode(Message(Type.FIND_NODE, b"key"))
    protocol = f"{PREFIX}/kad/1.0.0"
    await caller.request(node.host.peer_id, [address], protocol, request, limit=MAX_ANSWER, within=PATIENCE)


@asynccontextmanager
async def silent(node: Peer) -> AsyncIterator[list[MuxedStream]]:
    """Call a node and never tell what we are; give the streams on which it waits for that."""
    asked: list[MuxedStream] = []
    async with open_host(Identity.ephemeral(), ()) as host:
        host.serve(IDENTIFY, asked.append)
        await call(host, node)
        await until(lambda: asked)
        yield asked


def is_known(caller: Peer, node: Peer) -> bool:
    return id_bytes(caller.host.peer_id) in node.dht._network.table


async def test_callers_that_do_not_say_what_they_are_hold_up_nobody() -> None:
    async with peer() as node, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(silent(node)) for _ in range(SILENT)]
        honest = await stack.enter_async_context(peer())
        await call(honest.host, node)
        await until(lambda: is_known(honest, node))
        assert not any(stream.is_closed for asked in callers for stream in asked)


async def test_callers_in_one_network_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_membership, "_MAX_ASKED_PER_PLACE", SILENT)
    async with peer(listen=EVERYWHERE) as node, peer(listen=EVERYWHERE) as honest, AsyncExitStack() as stack:
        for _ in range(SILENT):
            await stack.enter_async_context(silent(node))
        neighbour = await stack.enter_async_context(peer())
        await call(neighbour.host, node)
        await call(honest.host, node, other_address())
        await until(lambda: is_known(honest, node))
        assert not is_known(neighbour, node)


@pytest.mark.parametrize("limit", ["_MAX_ASKED", "_MAX_ASKED_PER_PLACE"])
async def test_no_more_are_asked_at_a_time_than_there_is_room_for(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht_membership, limit, SILENT)
    async with peer() as node, peer() as honest, AsyncExitStack() as stack:
        for _ in range(SILENT):
            await stack.enter_async_context(silent(node))
        await call(honest.host, node)
        assert node.dht._membership._asked.total() == SILENT
        await stack.aclose()
        await until(lambda: not node.dht._membership._asked)
        assert not is_known(honest, node)
        await call(honest.host, node)
        await until(lambda: is_known(honest, node))


async def test_whoever_is_asked_when_a_node_fails_is_not_counted_any_more() -> None:
    async with peer() as node, silent(node):
        assert node.dht._membership._asked and node.dht._nursery is not None
        node.dht._nursery.cancel_scope.cancel()
        await until(lambda: node.dht._nursery is None)
        assert not node.dht._membership._asked
