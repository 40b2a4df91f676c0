"""A source that fails in a way that nobody foresaw is tried again, and the node goes on meanwhile."""

from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peertunnel import discovery
from peertunnel.discovery import Announcement, dht_membership, dht_search, mdns, rendezvous, sustain
from peertunnel.discovery.dht import Dht
from peertunnel.discovery.given import Given
from peertunnel.discovery.mdns import Mdns
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.discovery.rendezvous_point import Point
from peertunnel.events import Ready, Warned
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.interfaces import InterfaceAddress
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.protocols.kademlia.messages import Contact
from peertunnel.protocols.service import Service
from peertunnel.relay import RelayOptions, relay
from tests.node import pair, points
from tests.node.dht import PATIENCE, PREFIX, peer, until
from tests.node.pair import Log
from tests.node.wire import LOOPBACK, Provider, Wire, new_service, next_of


def fail(*_: object) -> None:
    raise KeyError("nobody foresaw this")


def failed(name: str) -> Warned:
    return Warned(f"Meeting peers by {name} has failed: the node goes on, and tries it again.")


async def test_a_node_outlives_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "links", fail)
    monkeypatch.setattr(dht_membership, "resolve", fail)
    log = Log()
    async with open_node(
        NodeOptions(identity=Identity.ephemeral(), listen=pair.LOOPBACK, dht=True), log
    ) as node:
        warned = await log.wait(Warned, 2)
        assert set(warned) == {failed("mDNS"), failed("the DHT")}
        async with open_host(Identity.ephemeral(), ()) as other:
            await other.identify(node.peer_id, node.addresses, within=PATIENCE)


async def test_a_relay_outlives_its_dht(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_membership, "resolve", fail)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await relay(RelayOptions(identity=Identity.ephemeral(), listen=pair.LOOPBACK), log, stop=stop)

        nursery.start_soon(run)
        assert await log.wait(Warned) == [failed("the DHT")]
        (ready,) = await log.wait(Ready)
        async with open_host(Identity.ephemeral(), ()) as other:
            await other.identify(ready.peer_id, ready.addresses, within=PATIENCE)
        stop.set()


async def test_an_announcement_goes_on_in_the_other_sources() -> None:
    class Broken(Given):
        name = "a broken source"

        async def announce(self, announcement: Announcement) -> None:
            fail()

    class Working(Given):
        async def announce(self, announcement: Announcement) -> None:
            await log.wait(Warned)
            announced.set()

    log, announced = Log(), trio.Event()
    options = NodeOptions(identity=Identity.ephemeral())
    async with open_host(options.identity, ()) as host, trio.open_nursery() as nursery:
        here = Node(host, (Broken(), Working()), options, emit=log)
        nursery.start_soon(here.announce, new_service())
        with trio.fail_after(PATIENCE):
            await announced.wait()
        nursery.cancel_scope.cancel()
    assert log.events == [failed("a broken source")]


async def test_a_source_is_started_again_after_growing_pauses_and_told_of_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log, began = Log(), list[float]()
    runs = [0.0] * 7 + [299.0, 0.0, 301.0, 0.0, 301.0]  # seconds until each of them fails

    async def work(what: str) -> None:
        assert what == "details"
        began.append(trio.current_time())
        if len(began) > len(runs):
            return
        await trio.sleep(runs[len(began) - 1])
        fail()

    await sustain(Given(), log, work, "details")
    pauses = [later - earlier - run for (earlier, later), run in zip(pairwise(began), runs, strict=True)]
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300, 300, 10, 20, 10]
    assert log.events == 3 * [failed(Given.name)]
    assert len(caplog.records) == len(runs)


async def test_a_search_by_mdns_outlives_a_failure(autojump_clock: MockClock, wire: Wire) -> None:
    failures = list[Exception]()

    def interfaces() -> tuple[InterfaceAddress, ...]:
        if failures:
            raise failures.pop()
        return (LOOPBACK,)

    service, log = new_service(), Log()
    node, there = Mdns(interfaces, wire.port), Provider(service)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sustain, node, log, node.run)
        with node.find(service) as candidates:
            await trio.testing.wait_all_tasks_blocked()
            failures.append(KeyError("nobody foresaw this"))
            await log.wait(Warned)
            assert not node._links
            nursery.start_soon(wire.mdns.announce, there.announcement)
            assert await next_of(candidates, within=60) == there.candidate
        nursery.cancel_scope.cancel()


async def fail_with_bootstrap(bootstrap: tuple[str, ...]) -> list[Contact]:
    """Fail for who has somewhere to begin: the one who is looked for has not, and goes on."""
    if bootstrap:
        fail()
    return []


async def test_a_search_in_the_dht_outlives_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_FIRST_PAUSE", 0.01)
    service, log = new_service(), Log()
    async with peer() as there, open_host(Identity.ephemeral(), ()) as host, trio.open_nursery() as nursery:
        there.provide(service)
        dht = Dht(host, (there.address,), prefix=PREFIX)
        with dht.find(service) as candidates:
            with monkeypatch.context() as patched:
                patched.setattr(dht_membership, "resolve", fail_with_bootstrap)
                nursery.start_soon(sustain, dht, log, dht.run)
                await log.wait(Warned)
            assert await next_of(candidates, within=PATIENCE) == there.candidate
        nursery.cancel_scope.cancel()


async def test_a_search_at_rendezvous_points_outlives_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_FIRST_PAUSE", 0.01)
    # What the points announce is of that day.
    monkeypatch.setattr("peertunnel.discovery.rendezvous.time.time", lambda: 0.0)
    monkeypatch.setattr(rendezvous, "_note", fail)  # what a search does where a point has not answered
    log = Log()
    async with (
        points.point() as (at, _),
        points.host() as provider,
        points.host() as seeker,
        trio.open_nursery() as nursery,
    ):
        source = Rendezvous(seeker, at.addresses)
        with source.find(points.SERVICE) as candidates:
            with monkeypatch.context() as patched:
                patched.setattr(Point, "discover", fail)
                nursery.start_soon(sustain, source, log, source.run)
                await log.wait(Warned)
            async with points.announced(provider, *at.addresses):
                assert (await next_of(candidates, within=PATIENCE)).peer_id == provider.peer_id
        nursery.cancel_scope.cancel()
    assert log.events == [failed("rendezvous points")]


async def test_a_round_of_a_search_in_the_dht_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht_search, "_FIRST_PAUSE", 0.01)
    service, failures = new_service(), [None]

    def topics(*details: Any) -> object:
        if failures:
            failures.pop()
            fail()
        return searched(*details)

    async with peer() as there, peer(there.address) as here:
        there.provide(service)
        searched = Service.topics_to_search
        monkeypatch.setattr(Service, "topics_to_search", topics)
        with here.dht.find(service) as candidates:
            assert await next_of(candidates, within=PATIENCE) == there.candidate
    assert not failures


async def test_a_caller_of_the_dht_that_cannot_be_identified_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [None]

    async def identify(*details: Any, **more: Any) -> object:
        if failures:
            failures.pop()
            fail()
        return await identified(*details, **more)

    async with peer() as here:
        identified = here.host.identify
        monkeypatch.setattr(here.host, "identify", identify)
        async with peer(here.address):
            await until(lambda: not failures)
            async with peer(here.address):
                await until(lambda: here.dht.size == 1)
