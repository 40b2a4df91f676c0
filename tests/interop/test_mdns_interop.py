"""mDNS with go-libp2p and rust-libp2p: each finds the other, whoever came first, across a cable and at home."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.interop.peers import Running, running
from tests.node.lan import Machine, open_machine
from tests.node.wire import new_peer

ROOT = b"r" * 32
HERE = "/ip4/0.0.0.0/tcp/4001"
COMMON = ["--mdns", "--seed", "mdns", "--listen", HERE, "--target", "127.0.0.1:9"]
PATIENCE = 5  # seconds; rust-libp2p asks after half a second, go-libp2p announces after one


@dataclass(frozen=True)
class Peer:
    """A foreign peer: it announces itself and prints whom it finds. The seed makes its id."""

    peer_id: str
    command: list[str]

    @asynccontextmanager
    async def on(self, machine: Machine) -> AsyncIterator[Running]:
        """Run it on a machine until the block ends, ready to begin with."""
        async with running(machine.command(*self.command)) as process:
            await process.event("ready", peer_id=self.peer_id)
            yield process


@pytest.fixture
def go(gopeer: Path) -> Peer:
    """go-libp2p, which finds itself at loopback and at the cable's address."""
    command = [str(gopeer), "tunnel-listen", "--tcp-only", *COMMON]
    return Peer("12D3KooWAVyV69fpzK1PLtZv1X2wtviAaAiAyLHL3CWw18Rguy9a", command)


@pytest.fixture
def rust(rspeer: Path) -> Peer:
    """rust-libp2p, which does the same."""
    command = [str(rspeer), "tunnel-listen", *COMMON]
    return Peer("12D3KooWB6mu1zkZB6Gm9f636otnDxzWA72M4bLubwGj8y26iHdZ", command)


@pytest.fixture(params=["go", "rust"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """Either of them."""
    found: Peer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def machines() -> AsyncIterator[tuple[Machine, Machine]]:
    """Two machines, 10.1.0.1 and 10.1.0.2, and the cable between them."""
    async with open_machine() as left, open_machine(left) as right:
        await left.cable("10.1.0.1/24", (right, "10.1.0.2/24"))
        yield left, right


async def until_found(process: Running, peer_id: str, addresses: set[str]) -> None:
    """Wait until a foreign peer has printed all these addresses of ours."""
    missing = addresses
    with trio.move_on_after(PATIENCE):
        while missing:
            found = process.past("mdns-found", peer_id=peer_id)
            told = {address for event in found for address in event["addresses"]}
            missing = addresses - {address.removesuffix(f"/p2p/{peer_id}") for address in told}
            await trio.sleep(0.05)
    assert not missing, str(process)


@pytest.mark.parametrize("we_come_first", [True, False])
async def test_we_find_them(machines: tuple[Machine, Machine], peer: Peer, we_come_first: bool) -> None:
    left, right = machines
    async with AsyncExitStack() as stack:
        if not we_come_first:
            await stack.enter_async_context(peer.on(right))
        across = await stack.enter_async_context(left.finding_peer(peer.peer_id))
        home = await stack.enter_async_context(right.finding_peer(peer.peer_id))
        await across.event("ready")
        await home.event("ready")
        if we_come_first:
            await stack.enter_async_context(peer.on(right))
        there = f"/ip4/10.1.0.2/tcp/4001/p2p/{peer.peer_id}"
        await across.event("found", seconds=PATIENCE, first=there, more=[])
        await home.event("found", seconds=PATIENCE, peer_id=peer.peer_id)
        assert len(across.past("found")) == len(across.past("found", more=[])), "loopback from elsewhere"


@pytest.mark.parametrize("we_come_first", [True, False])
@pytest.mark.parametrize("at_home", [True, False])
async def test_they_find_us(
    machines: tuple[Machine, Machine], peer: Peer, we_come_first: bool, at_home: bool
) -> None:
    left, right = machines
    ours, peer_id = right if at_home else left, new_peer()
    async with AsyncExitStack() as stack:
        if not we_come_first:
            theirs = await stack.enter_async_context(peer.on(right))
        provider = await stack.enter_async_context(ours.announcing(peer_id, ROOT, HERE))
        await provider.event("ready")
        if we_come_first:
            theirs = await stack.enter_async_context(peer.on(right))
        host = "10.1.0.2" if at_home else "10.1.0.1"
        await until_found(theirs, peer_id, {f"/ip4/{host}/tcp/4001"})


async def test_they_find_all_our_addresses(machines: tuple[Machine, Machine], peer: Peer) -> None:
    left, right = machines
    peer_id, addresses = new_peer(), [f"/ip4/10.1.0.1/tcp/{port}" for port in range(5000, 5030)]
    async with peer.on(right) as theirs, left.announcing(peer_id, ROOT, *addresses) as provider:
        await provider.event("ready")
        await until_found(theirs, peer_id, set(addresses))


async def test_they_find_our_new_addresses_after_a_restart(
    machines: tuple[Machine, Machine], peer: Peer
) -> None:
    left, right = machines
    peer_id = new_peer()
    async with peer.on(right) as theirs:
        for port in (5001, 5002):
            async with left.announcing(peer_id, ROOT, f"/ip4/0.0.0.0/tcp/{port}") as provider:
                await provider.event("ready")
                await until_found(theirs, peer_id, {f"/ip4/10.1.0.1/tcp/{port}"})


async def test_our_loopback_is_not_told_to_other_machines(
    machines: tuple[Machine, Machine], go: Peer
) -> None:
    left, right = machines
    peer_id = new_peer()
    async with go.on(right) as theirs, left.announcing(peer_id, ROOT, HERE):
        found = await theirs.event("mdns-found", peer_id=peer_id)
        assert found["addresses"] == ["/ip4/10.1.0.1/tcp/4001"]
