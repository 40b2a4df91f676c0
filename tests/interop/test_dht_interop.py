"""The DHT with Go's, Rust's and JavaScript's nodes: records that they hold, that we hold, that they find and we find."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import dht_key
from tests.interop.peers import running
from tests.interop.tunnels import tcp_address
from tests.node.dht import PREFIX, Peer, peer

NAME = "ssh.example"
SERVICE = Service(NAME, is_public=True, public_topic=NAME.encode())
PATIENCE = 20  # seconds for what takes less than two on an idle machine


@dataclass(frozen=True)
class Foreign:
    """A foreign peer: the commands for a node that serves the DHT, and for clients that begin at one."""

    serve: list[str]
    provide: list[str]
    find: list[str]


@pytest.fixture
def go(gopeer: Path) -> Foreign:
    """go-libp2p with a Kademlia node that was checked against go-libp2p-kad-dht."""
    common = ["--prefix", PREFIX, "--tcp-only"]
    named = [*common, "--id", NAME, "--bootstrap"]
    return Foreign(
        [str(gopeer), "relay", *common, "--listen", "/ip4/127.0.0.1/tcp/0"],
        [str(gopeer), "provide", *named],
        [str(gopeer), "find", *named],
    )


@pytest.fixture
def rust(rspeer: Path) -> Foreign:
    """rust-libp2p with its own Kademlia."""
    common = ["--kad-protocol", f"{PREFIX}/kad/1.0.0", "--listen", "/ip4/127.0.0.1/tcp/0"]
    key = dht_key(NAME.encode()).hex()
    return Foreign(
        [str(rspeer), "relay", *common],
        [str(rspeer), "dht", *common, "--external", "--provide", key, "--bootstrap"],
        [str(rspeer), "dht", *common, "--find", key, "--bootstrap"],
    )


@pytest.fixture
def js(jspeer: Path) -> Foreign:
    """js-libp2p with its @libp2p/kad-dht."""
    common = ["--prefix", PREFIX]
    named = [*common, "--key", dht_key(NAME.encode()).hex(), "--bootstrap"]
    return Foreign(
        [str(jspeer), "serve", *common],
        [str(jspeer), "provide", *named],
        [str(jspeer), "find", *named],
    )


@pytest.fixture(params=["go", "rust", "js"])
def foreign(request: pytest.FixtureRequest) -> Foreign:
    """Each of them."""
    found: Foreign = request.getfixturevalue(request.param)
    return found


@asynccontextmanager
async def serving(foreign: Foreign) -> AsyncIterator[str]:
    """Run one of their nodes; yield its address."""
    async with running(foreign.serve) as process:
        yield tcp_address(await process.event("ready"))


async def found_by_us(client: Peer, peer_id: str) -> tuple[str, ...]:
    """Look for the service until its provider is found; give its addresses."""
    with trio.fail_after(PATIENCE), client.dht.find(SERVICE) as channel:
        while (candidate := await channel.receive()).peer_id != peer_id:
            pass
    return candidate.addresses


async def found_by_them(foreign: Foreign, address: str, peer_id: str) -> dict[str, Any]:
    """Run their search, again if it ends too early, until the provider is found."""
    with trio.fail_after(PATIENCE):
        while True:
            async with running([*foreign.find, address]) as process:
                # A process has no event to wait for.
                while process.process.poll() is None and not process.past("provider", peer_id=peer_id):  # noqa: ASYNC110
                    await trio.sleep(0.02)
                if found := process.past("provider", peer_id=peer_id):
                    return found[0]


async def test_their_record_on_their_node_is_found_by_us(foreign: Foreign) -> None:
    async with serving(foreign) as node, running([*foreign.provide, node]) as provider:
        ready = await provider.event("ready")
        async with peer(node, prefix=PREFIX, server=False) as client:
            assert tcp_address(ready) in await found_by_us(client, ready["peer_id"])


async def test_our_record_on_their_node_is_found_by_them_and_by_us(foreign: Foreign) -> None:
    async with serving(foreign) as node, peer(node, server=False) as provider:
        provider.provide(SERVICE)
        found = await found_by_them(foreign, node, provider.host.peer_id)
        assert set(found.get("addresses", ())) <= {a.split("/p2p/")[0] for a in provider.host.addresses}
        async with peer(node, server=False) as client:
            assert await found_by_us(client, provider.host.peer_id) == provider.host.addresses


async def test_their_record_on_our_node_is_found_by_them_and_by_us(foreign: Foreign) -> None:
    async with peer() as node, running([*foreign.provide, node.address]) as provider:
        ready = await provider.event("ready")
        await found_by_them(foreign, node.address, ready["peer_id"])
        async with peer(node.address, server=False) as client:
            assert tcp_address(ready) in await found_by_us(client, ready["peer_id"])


async def test_our_nodes_and_theirs_make_one_network(foreign: Foreign) -> None:
    """Records and lookups go through nodes of both makes, whoever they began at."""
    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(serving(foreign))
        ours = await stack.enter_async_context(peer(theirs))
        third = await stack.enter_async_context(running([*foreign.serve, "--bootstrap", ours.address]))
        await third.event("ready")
        provider = await stack.enter_async_context(peer(theirs))
        client = await stack.enter_async_context(peer(ours.address, server=False))
        provider.provide(SERVICE)
        assert await found_by_us(client, provider.host.peer_id) == provider.host.addresses
        await found_by_them(foreign, ours.address, provider.host.peer_id)
