"""Providers and consumers at rendezvous points, over real connections on loopback."""

import itertools
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from peertunnel.discovery import Candidate, rendezvous
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.discovery.rendezvous_point import Point, addresses_of
from peertunnel.host import Host
from peertunnel.identity import Identity
from peertunnel.protocols.address import AddressError
from peertunnel.protocols.record import PeerRecord, seal
from peertunnel.protocols.rendezvous import (
    Book,
)
from peertunnel.protocols.service import Service
from tests.node.points import (
    LOOPBACK,
    PATIENCE,
    PLACES,
    RECOVERY,
    SERVICE,
    announced,
    host,
    point,
    source,
    until,
)


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topics of the day are those of 1970."""
    monkeypatch.setattr("peertunnel.discovery.rendezvous.time.time", lambda: 0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and ask ten times a second."""
    monkeypatch.setattr(rendezvous, "_LOOK", 0.1)
    monkeypatch.setattr(rendezvous, "_POLL", 0.1)


def candidate(peers: Host, *places: str) -> Candidate:
    addresses = tuple(f"{place}/p2p/{peers.peer_id}" for place in places or PLACES)
    return Candidate(peers.peer_id, addresses, "rendezvous")


async def test_a_provider_is_found_whoever_comes_first() -> None:
    async with (
        point() as (server, _),
        host() as provider,
        host() as consumer,
        source(consumer, *server.addresses) as found,
    ):
        with trio.fail_after(PATIENCE), found.find(SERVICE) as early:
            async with announced(provider, *server.addresses):
                assert await early.receive() == candidate(provider)
                with found.find(SERVICE) as late:
                    assert await late.receive() == candidate(provider)


async def test_what_is_sought_before_it_runs_is_found_then() -> None:
    async with point() as (server, _), host() as provider, host() as consumer:
        found = Rendezvous(consumer, server.addresses)
        with found.find(SERVICE) as candidates:
            async with trio.open_nursery() as nursery, announced(provider, *server.addresses):
                nursery.start_soon(found.run)
                with trio.fail_after(PATIENCE):
                    assert await candidates.receive() == candidate(provider)
                nursery.cancel_scope.cancel()


async def test_who_announces_withdraws_at_the_end() -> None:
    async with point() as (server, book), host() as provider:
        async with announced(provider, *server.addresses):
            await until(lambda: book.book.size == 2)
        assert book.book.size == 0


@pytest.mark.usefixtures("quick")
async def test_new_addresses_are_told_at_once_and_others_are_not_told_again() -> None:
    addresses = [[PLACES[0]]]
    async with point() as (server, book), host() as provider, host() as consumer:
        told = lambda: tuple(f"{place}/p2p/{provider.peer_id}" for place in addresses[-1])
        at = server.addresses
        async with source(consumer, *at) as found, announced(provider, *at, addresses=told):
            with found.find(SERVICE) as candidates:
                with trio.fail_after(PATIENCE):
                    assert await candidates.receive() == candidate(provider, PLACES[0])
                addresses.append([PLACES[1]])
                with trio.fail_after(RECOVERY):
                    assert await candidates.receive() == candidate(provider, PLACES[1])
                polls = book.answers["discover", "ok"]
                await until(lambda: book.answers["discover", "ok"] > polls + 4)
                with pytest.raises(trio.WouldBlock):
                    candidates.receive_nowait()


@pytest.mark.usefixtures("quick")
async def test_nobody_is_passed_over_because_the_reader_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_MAX_CANDIDATES", 1)
    async with AsyncExitStack() as stack:
        server, book = await stack.enter_async_context(point())
        providers = [await stack.enter_async_context(host()) for _ in range(3)]
        for provider in providers:
            await stack.enter_async_context(announced(provider, *server.addresses))
        await until(lambda: book.book.size == len(SERVICE.topics_to_publish(0.0)) * len(providers))
        found = await stack.enter_async_context(
            source(await stack.enter_async_context(host()), *server.addresses)
        )
        with found.find(SERVICE) as candidates, trio.fail_after(PATIENCE):
            await until(lambda: candidates.statistics().current_buffer_used == 1)
            met = {(await candidates.receive()).peer_id for _ in providers}
            assert met == {provider.peer_id for provider in providers}


async def test_a_provider_that_has_been_restarted_is_found_again() -> None:
    async with (
        point() as (server, _),
        host() as consumer,
        source(consumer, *server.addresses) as found,
    ):
        with found.find(SERVICE) as candidates:
            for _ in range(2):
                async with host(seed=b"s" * 32) as provider, announced(provider, *server.addresses):
                    with trio.fail_after(RECOVERY):
                        assert await candidates.receive() == candidate(provider)


async def test_a_point_that_has_lost_its_memory_is_told_again() -> None:
    async with host() as provider, host() as consumer:
        async with point() as (server, _):
            places = server.addresses
            listen = tuple(place.partition("/p2p/")[0] for place in places)
        async with source(consumer, *places) as found, announced(provider, *places):
            with found.find(SERVICE) as candidates:
                for number in range(2):
                    async with point(listen) as (_, book):
                        await until(lambda: book.book.size == 2)
                        if not number:
                            with trio.fail_after(PATIENCE):
                                assert await candidates.receive() == candidate(provider)
                        await until(lambda: book.answers["discover", "ok"] > 1)


async def test_a_point_that_is_back_before_anybody_looks_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay that was killed: whoever needs a circuit connects at once, and the point seems to have been there always."""
    monkeypatch.setattr(rendezvous, "_TOUCH", 1000.0)
    async with host() as provider:
        async with point() as (server, _):
            places, listen = server.addresses, tuple(at.partition("/p2p/")[0] for at in server.addresses)
        async with announced(provider, *places):
            async with point(listen) as (_, book):
                await until(lambda: book.book.size == 2)
            await until(lambda: not provider.connections(server.peer_id))
            async with point(listen) as (_, book):
                await provider.dial(server.peer_id, places, PATIENCE)
                await until(lambda: book.book.size == 2)


@pytest.mark.usefixtures("quick")
async def test_a_point_that_forgets_while_the_connection_stands_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "_TOUCH", 0.1)
    async with point() as (server, served), host() as provider, announced(provider, *server.addresses):
        await until(lambda: served.book.size == 2 and served.answers["discover", "ok"] > 2)
        served.book = Book(b"new")
        await until(lambda: served.book.size == 2)
        assert served.answers["discover", "invalid_cookie"] == 1


@pytest.mark.usefixtures("quick")
async def test_what_fails_unforeseen_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_FIRST_PAUSE", 0.01)
    failing, discover = {"search", "announcement"}, Point.discover

    def fail_once(what: str) -> bool:
        if what in failing:
            failing.remove(what)
            raise KeyError(what)
        return True

    async def ask(self: Point, *question: Any) -> Any:
        fail_once("search")
        return await discover(self, *question)

    monkeypatch.setattr(Point, "discover", ask)
    async with point() as (server, _), host() as provider, host() as consumer:
        told = lambda: candidate(provider).addresses if fail_once("announcement") else ()
        at = server.addresses
        async with source(consumer, *at) as found, announced(provider, *at, addresses=told):
            with trio.fail_after(PATIENCE), found.find(SERVICE) as candidates:
                assert await candidates.receive() == candidate(provider)
    assert not failing


async def test_one_point_is_enough() -> None:
    async with point() as (server, _), host() as provider, host() as consumer:
        away = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.ephemeral().peer_id}"
        both = (away, *server.addresses)
        async with source(consumer, *both) as found, announced(provider, *both):
            with trio.fail_after(PATIENCE), found.find(SERVICE) as candidates:
                assert await candidates.receive() == candidate(provider)


@pytest.mark.usefixtures("quick")
async def test_who_searches_does_not_find_itself() -> None:
    async with (
        point() as (server, book),
        host() as both,
        source(both, *server.addresses) as found,
        announced(both, *server.addresses),
    ):
        with found.find(SERVICE) as candidates:
            await until(lambda: book.book.size == 2 and book.answers["discover", "ok"] > 6)
            with pytest.raises(trio.WouldBlock):
                candidates.receive_nowait()


@pytest.mark.usefixtures("quick")
async def test_another_service_is_not_found() -> None:
    async with (
        point() as (server, book),
        host() as provider,
        host() as consumer,
        source(consumer, *server.addresses) as found,
        announced(provider, *server.addresses),
    ):
        await until(lambda: book.book.size == 2)
        pinned = Service("pinned", SERVICE.root, peer_id=consumer.peer_id)
        with found.find(Service("other", b"o" * 32)) as other, found.find(pinned) as wrong:
            await until(lambda: book.answers["discover", "ok"] > 8)
            for candidates in (other, wrong):
                with pytest.raises(trio.WouldBlock):
                    candidates.receive_nowait()


async def test_where_nothing_can_be_found_the_channel_ends_at_once() -> None:
    async with host() as consumer, source(consumer, *LOOPBACK[:0]) as nowhere:
        with nowhere.find(SERVICE) as candidates, pytest.raises(trio.EndOfChannel):
            candidates.receive_nowait()
        away = Rendezvous(consumer, (f"{PLACES[0]}/p2p/{Identity.ephemeral().peer_id}",))
        pinned = Service.from_addresses([f"{PLACES[0]}/p2p/{consumer.peer_id}"])
        with away.find(pinned) as candidates, pytest.raises(trio.EndOfChannel):
            candidates.receive_nowait()


@pytest.mark.usefixtures("quick")
async def test_a_search_ends_with_its_channel() -> None:
    async with (
        point() as (server, book),
        host() as consumer,
        source(consumer, *server.addresses) as found,
    ):
        with found.find(SERVICE):
            await until(lambda: book.answers["discover", "ok"] > 1)
        nursery = found._nursery
        assert nursery is not None
        await until(lambda: not nursery.child_tasks)


async def test_a_point_needs_a_peer_id() -> None:
    async with host() as peers:
        with pytest.raises(AddressError):
            Rendezvous(peers, LOOPBACK)


async def test_addresses_of_this_machine_are_told_to_points_on_it_only() -> None:
    async with host() as peers:
        own = (f"/ip4/127.0.0.1/tcp/7/p2p/{peers.peer_id}", f"{PLACES[0]}/p2p/{peers.peer_id}")
        here = Point(peers, "", (f"/ip4/127.0.0.1/tcp/1/p2p/{peers.peer_id}",))
        there = Point(peers, "", (f"/ip4/198.51.100.1/tcp/1/p2p/{peers.peer_id}",))
        raw = [Multiaddr(place).to_bytes() for place in ("/ip4/127.0.0.1/tcp/7", PLACES[0])]
        assert rendezvous._worth_telling(here, own) == tuple(raw)
        assert rendezvous._worth_telling(there, own) == (raw[1],)


async def test_what_is_told_fits_a_record() -> None:
    async with host() as peers:
        names = [
            f"/dns4/{'.'.join(['n' * 60] * 4)}{number}/tcp/1/p2p/{peers.peer_id}" for number in range(100)
        ]
        told = rendezvous._worth_telling(Point(peers, "", PLACES), tuple(names))
        assert 10 < len(told) < 20
        seal(PeerRecord(peers.peer_id, 1, told), peers.sign)


def test_addresses_that_make_no_sense_are_passed_over() -> None:
    owner, other = Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
    raw = [
        Multiaddr(f"{PLACES[0]}/p2p/{owner}").to_bytes(),
        Multiaddr(f"{PLACES[0]}/p2p/{other}").to_bytes(),
        Multiaddr(PLACES[0]).to_bytes(),
        Multiaddr(f"/p2p/{owner}").to_bytes(),
        b"",
        b"\xff\xff\xff",
        Multiaddr(PLACES[1]).to_bytes(),
    ]
    expected = tuple(f"{place}/p2p/{owner}" for place in PLACES)
    assert addresses_of(PeerRecord(owner, 1, tuple(raw))) == expected
    many = itertools.repeat(Multiaddr(PLACES[0]).to_bytes(), 10**3)
    assert len(addresses_of(PeerRecord(owner, 1, tuple(many)))) == 1


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_addresses_or_passed_over(raw: list[bytes]) -> None:
    owner = Identity(b"o" * 32).peer_id
    for address in addresses_of(PeerRecord(owner, 1, tuple(raw))):
        assert address.endswith(f"/p2p/{owner}")
