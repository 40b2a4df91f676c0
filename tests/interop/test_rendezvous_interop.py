"""Rendezvous with rust-libp2p, which wants another envelope than the specification's: as the point, and as its client."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.discovery.rendezvous_point import Point, addresses_of
from peertunnel.discovery.rendezvous_server import RendezvousServer
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import cid
from tests.interop.peers import Running, running
from tests.interop.tunnels import tcp_address

LISTEN = "/ip4/127.0.0.1/tcp/0"
SERVICE = Service("a service", b"r" * 32)
TOPIC = b"t" * 32
NAME = cid(TOPIC)
PATIENCE = 30  # seconds, on a busy machine
STAY = "60"  # seconds that a foreign client stays, if it isn't stopped before


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    async with open_host(Identity.ephemeral(), (LISTEN,)) as opened:
        yield opened


@asynccontextmanager
async def our_point() -> AsyncIterator[tuple[str, RendezvousServer]]:
    """Run a rendezvous point of ours; give its address."""
    async with host() as peers, trio.open_nursery() as nursery:
        server = RendezvousServer(peers)
        await nursery.start(server.run)
        yield peers.addresses[0], server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def their_point(rspeer: Path) -> AsyncIterator[tuple[str, Running]]:
    """Run a rendezvous point of rust-libp2p; give its address."""
    async with running([str(rspeer), "relay", "--transport", "noise", "--listen", LISTEN]) as process:
        yield tcp_address(await process.event("ready")), process


@asynccontextmanager
async def their_client(rspeer: Path, address: str, *options: str) -> AsyncIterator[Running]:
    """Run a client of rust-libp2p that registers (--register) or discovers (--discover)."""
    common = ["probe", "--transport", "noise", "--listen", LISTEN, "--namespace", NAME, "--external"]
    async with running([str(rspeer), *common, "--peer", address, "--seconds", STAY, *options]) as process:
        yield process


@asynccontextmanager
async def announced(peers: Host, address: str) -> AsyncIterator[None]:
    announcement = Announcement(peers.peer_id, lambda: peers.addresses, lambda: (TOPIC,))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Rendezvous(peers, (address,)).announce, announcement)
        yield
        nursery.cancel_scope.cancel()


def point(peers: Host, address: str) -> Point:
    return Point(peers, address.rpartition("/")[2], [address])


async def found(at: Point) -> list[Candidate]:
    """Ask until somebody is there."""
    deadline = trio.current_time() + PATIENCE
    while not (records := (await at.discover(NAME, b""))[0]):
        assert trio.current_time() < deadline
        await trio.sleep(0.05)
    return [Candidate(record.peer_id, addresses_of(record), "") for record in records]


async def address_of(process: Running) -> str:
    return str((await process.event("address"))["address"])


def names(event: dict[str, Any]) -> dict[str, list[str]]:
    return {peer["peer_id"]: peer["addresses"] for peer in event["found"]}


async def test_rust_meets_rust_at_our_point(rspeer: Path) -> None:
    async with our_point() as (address, server), their_client(rspeer, address, "--register") as provider:
        registered = await provider.event("registered")
        assert (registered["ttl_s"], registered["namespace"]) == (7200, NAME)
        async with their_client(rspeer, address, "--discover") as consumer:
            told = names(await consumer.event("discovered"))
            assert list(told.values()) == [[await address_of(provider)]]
        assert server.answers == {("register", "ok"): 1, ("discover", "ok"): 1}


async def test_we_find_rust_at_our_point(rspeer: Path) -> None:
    async with (
        our_point() as (address, _),
        their_client(rspeer, address, "--register") as provider,
        host() as us,
    ):
        (candidate,) = await found(point(us, address))
        place = f"{await address_of(provider)}/p2p/{candidate.peer_id}"
        assert candidate.addresses == (place,)


async def test_we_meet_at_their_point(rspeer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "topics_to_search", lambda *_: (TOPIC,))
    async with AsyncExitStack() as stack:
        address, process = await stack.enter_async_context(their_point(rspeer))
        provider, consumer = [await stack.enter_async_context(host()) for _ in range(2)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        source = Rendezvous(consumer, (address,))
        nursery.start_soon(source.run)
        with trio.fail_after(PATIENCE), source.find(SERVICE) as candidates:
            async with announced(provider, address):
                expected = Candidate(provider.peer_id, provider.addresses, "rendezvous")
                assert await candidates.receive() == expected
        await gone(point(consumer, address))
        assert process.process.poll() is None
        nursery.cancel_scope.cancel()


async def gone(at: Point) -> None:
    """Wait until nobody is there any more."""
    deadline = trio.current_time() + PATIENCE
    while (await at.discover(NAME, b""))[0]:
        assert trio.current_time() < deadline
        await trio.sleep(0.05)


async def test_rust_finds_us_at_their_point(rspeer: Path) -> None:
    async with their_point(rspeer) as (address, _), host() as us, announced(us, address):
        await found(point(us, address))
        async with their_client(rspeer, address, "--discover") as consumer:
            places = [place.partition("/p2p/")[0] for place in us.addresses]
            assert names(await consumer.event("discovered")) == {us.peer_id: places}


async def test_we_find_rust_at_their_point_and_it_is_no_news_twice(rspeer: Path) -> None:
    async with (
        their_point(rspeer) as (address, _),
        their_client(rspeer, address, "--register") as provider,
        host() as us,
    ):
        await provider.event("registered")
        at = point(us, address)
        records, cookie = await at.discover(NAME, b"")
        place = f"{await address_of(provider)}/p2p/{records[0].peer_id}"
        assert [addresses_of(record) for record in records] == [(place,)]
        assert (await at.discover(NAME, cookie))[0] == []
