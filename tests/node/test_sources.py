"""A source that fails in a way that nobody foresaw is given up, and the node goes on without it."""

import pytest
import trio

from peertunnel.discovery import Announcement, dht_membership, mdns
from peertunnel.discovery.given import Given
from peertunnel.events import Ready, Warned
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.relay import RelayOptions, relay
from tests.node.pair import LOOPBACK, PATIENCE, Log
from tests.node.wire import new_service


def fail(*_: object) -> None:
    raise KeyError("nobody foresaw this")


def given_up(name: str) -> Warned:
    return Warned(f"Meeting peers by {name} has failed, and the node goes on without it.")


async def test_a_node_outlives_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "links", fail)
    monkeypatch.setattr(dht_membership, "resolve", fail)
    log = Log()
    async with open_node(NodeOptions(identity=Identity.ephemeral(), listen=LOOPBACK, dht=True), log) as node:
        warned = await log.wait(Warned, 2)
        assert set(warned) == {given_up("mDNS"), given_up("the DHT")}
        async with open_host(Identity.ephemeral(), ()) as other:
            await other.identify(node.peer_id, node.addresses, within=PATIENCE)


async def test_a_relay_outlives_its_dht(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_membership, "resolve", fail)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await relay(RelayOptions(identity=Identity.ephemeral(), listen=LOOPBACK), log, stop=stop)

        nursery.start_soon(run)
        assert await log.wait(Warned) == [given_up("the DHT")]
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
    async with open_host(options.identity, ()) as host:
        await Node(host, (Broken(), Working()), options, emit=log).announce(new_service())
    assert log.events == [given_up("a broken source")]
    assert announced.is_set()
