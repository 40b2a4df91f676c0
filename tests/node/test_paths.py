"""Several ways to one provider: the best carries new tunnels, limited ones are renewed, and those out of use retire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from peertunnel import keeper, sockets
from peertunnel.access import Access
from peertunnel.bind import bind
from peertunnel.config import Ways
from peertunnel.endpoints import TcpEndpoint
from peertunnel.errors import Refused
from peertunnel.events import PathChanged, TunnelClosed
from peertunnel.expose import expose
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.paths import Paths
from peertunnel.protocols.circuit import Limit
from peertunnel.protocols.service import Service
from peertunnel.transport.circuits import relay_of
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import LOOPBACK, PATIENCE, Log, echo, target, until
from tests.node.test_circuits import relay, reserved
from tests.traffic.streams import receive_exactly


@asynccontextmanager
async def node_at(
    relays: tuple[str, ...], listen: tuple[str, ...], ways: Ways = "any"
) -> AsyncIterator[Node]:
    options = NodeOptions(identity=Identity.ephemeral(), listen=listen, mdns=False, relays=relays, ways=ways)
    async with open_node(options) as node:
        yield node


class Tunnel:
    """A provider and a consumer that know each other by a circuit address only."""

    def __init__(self, provider: Node, consumer: Node) -> None:
        self.provider, self.consumer = provider, consumer
        self.provider_log, self.consumer_log = Log(), Log()
        self.port = 0

    @property
    def paths(self) -> list[str]:
        return [event.path for event in self.consumer_log.all(PathChanged)]

    async def echoes(self, data: bytes = b"?") -> bool:
        """Carry something there and back through a tunnel of its own; tell whether all of it came."""
        received = 0
        async with (
            await trio.open_tcp_stream("127.0.0.1", self.port) as client,
            trio.open_nursery() as nursery,
        ):

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    await client.send_all(data)

            nursery.start_soon(send)
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
                while received < len(data) and (part := await client.receive_some()):
                    received += len(part)
        return received == len(data)


@asynccontextmanager
async def tunnel(
    relays: tuple[str, ...],
    listen: tuple[str, ...] = (),
    ways: Ways = "any",
    root: bytes | None = None,
) -> AsyncIterator[Tunnel]:
    async with (
        target(echo) as port,
        node_at(relays, listen, "any" if ways == "direct" else ways) as provider,
        node_at((), (), ways) as consumer,
        trio.open_nursery() as nursery,
    ):
        joined = Tunnel(provider, consumer)
        stop = trio.Event()

        async def provide() -> None:
            access = Access(is_public=root is None)
            log, endpoint = joined.provider_log, TcpEndpoint(None, port)
            service = Service("service", root, is_public=root is None)
            await expose(provider, service, endpoint, log, access=access, grace=0, stop=stop)

        nursery.start_soon(provide)
        await until(lambda: any(relay_of(address) for address in provider.addresses))
        circuit = next(address for address in provider.addresses if relay_of(address))
        service = Service("service", root).with_addresses([circuit])
        listeners = await sockets.listen(TcpEndpoint("127.0.0.1", 0))
        joined.port = listeners[0].getsockname()[1]

        async def consume() -> None:
            log = joined.consumer_log
            await bind(consumer, service, listeners, log, wait=2, grace=0, stop=stop)

        nursery.start_soon(consume)
        yield joined
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("root", [None, b"r" * 32])
async def test_from_a_relay_to_a_direct_path_without_losing_a_tunnel(root: bytes | None) -> None:
    async with relay() as (point, server), tunnel(point.addresses, LOOPBACK, root=root) as joined:
        with trio.fail_after(PATIENCE):
            assert await joined.echoes()
        await until(lambda: joined.paths[-1:] == ["direct"])
        assert await joined.echoes()
        peer = joined.provider.peer_id
        await until(lambda: [c.way.kind for c in joined.consumer.host.connections(peer)] == ["direct"])
        await until(lambda: not server.book.circuits)
        assert joined.paths in (["relayed", "direct"], ["direct"])
        told = [event.path for event in joined.provider_log.all(PathChanged)]
        assert told[-1] == "direct" and "none" not in told


async def test_of_two_direct_connections_one_stays() -> None:
    """As where a hole was punched for TCP and for QUIC."""
    async with relay() as (point, _), tunnel(point.addresses, LOOPBACK) as joined:
        await until(lambda: joined.paths[-1:] == ["direct"])
        host, peer = joined.consumer.host, joined.provider.peer_id
        direct = [address for address in joined.provider.addresses if relay_of(address) is None]
        second = await host.dial(peer, direct, PATIENCE)
        await until(lambda: host.connections(peer) != [second] and len(host.connections(peer)) == 1)
        assert second.reason and await joined.echoes()
        assert joined.paths[-1] == "direct"


async def test_only_relayed_ways_when_nobody_may_know_where_we_are() -> None:
    async with relay() as (point, _), tunnel(point.addresses, ways="relayed") as joined:
        assert all(relay_of(address) for address in joined.provider.addresses)
        assert await joined.echoes()
        assert joined.paths == ["relayed"]


async def test_a_relay_carries_no_tunnel_where_only_direct_ways_may() -> None:
    async with relay() as (point, _), tunnel(point.addresses, ways="direct") as joined:
        await until(lambda: joined.paths == ["relayed"])
        assert not await joined.echoes()


async def test_another_circuit_is_ready_before_the_relay_cuts_the_first() -> None:
    limit = Limit(600, 256 * 1024)
    async with relay(limit) as (point, _), tunnel(point.addresses, ways="relayed") as joined:
        await joined.consumer_log.wait(PathChanged)
        (told,) = joined.consumer_log.all(PathChanged)
        assert told.limit_bytes is not None and 200 * 1024 < told.limit_bytes < 256 * 1024
        for _ in range(8):  # each takes more than a third of what a circuit carries
            seen = len(joined.paths)
            assert await joined.echoes(bytes(100 * 1024))
            assert await joined.echoes(bytes(100 * 1024))
            await until(lambda seen=seen: len(joined.paths) > seen)  # type: ignore[misc]
        assert "none" not in joined.paths


@pytest.mark.parametrize("failure", [Refused, RuntimeError])
async def test_circuits_that_do_not_prove_themselves_are_closed_and_not_tried_at_once_again(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """The one in use is nearly over from the beginning, and the provider has changed its mind."""
    mock_clock.autojump_threshold = 0.02
    monkeypatch.setattr(keeper, "_LOOK", 0.02)
    tried: list[float] = []

    async def refuse(service: Service, connection: MuxedConnection) -> None:
        tried.append(trio.current_time())
        raise failure("on purpose")

    async with (
        relay(Limit(int(keeper.RENEWAL) - 1, 256 * 1024)) as (point, server),
        tunnel(point.addresses, ways="relayed") as joined,
    ):
        await joined.consumer_log.wait(PathChanged)
        monkeypatch.setattr(joined.consumer, "prove", refuse)
        await until(lambda: len(tried) >= 6)
        await until(lambda: server.book.circuits == 1)
        pauses = [later - earlier for earlier, later in pairwise(tried)]
        assert pauses[4] > 4 * 0.02 and pauses[4] > 2 * min(pauses)


async def test_of_circuits_limited_in_bytes_only_the_newest_is_used() -> None:
    """Or the one that is used up would be renewed again and again, and go on carrying tunnels."""
    async with (
        relay(Limit(0, 256 * 1024)) as (point, _),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as consumer,
    ):
        paths = Paths(provider.peer_id, Log())
        for _ in range(2):
            circuit = await consumer.dial(provider.peer_id, provider.addresses, PATIENCE)
            assert circuit.way.limit is not None and circuit.way.limit.ends_at is None
            paths.add(circuit)
            assert paths.best is circuit


@pytest.mark.parametrize("limit", [Limit(600, 256 * 1024), Limit(3, 0)], ids=["bytes", "seconds"])
async def test_a_tunnel_that_a_relay_cuts_at_its_limit_says_so(limit: Limit) -> None:
    async with relay(limit) as (point, _), tunnel(point.addresses, ways="relayed") as joined:
        async with await trio.open_tcp_stream("127.0.0.1", joined.port) as client:
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
                sent = 0
                while limit.bytes == 0 or sent < 2 * limit.bytes:  # in pieces, which the relay passes on
                    await client.send_all(bytes(1024))
                    await receive_exactly(client, 1024)
                    sent += 1024
        for log in (joined.consumer_log, joined.provider_log):
            (closed, *_) = await log.wait(TunnelClosed)
            assert closed.reason == "the relay's limit was reached"


async def test_a_tunnel_whose_relay_goes_away_before_its_limit_says_that_the_connection_was_lost() -> None:
    async with (
        relay(Limit(600, 1 << 20)) as (point, _),
        tunnel(point.addresses, ways="relayed") as joined,
        await trio.open_tcp_stream("127.0.0.1", joined.port) as client,
    ):
        await client.send_all(b"hello")
        await receive_exactly(client, 5)
        for connection in point.all_connections():
            point.start_soon(connection.close)
        (closed,) = await joined.consumer_log.wait(TunnelClosed)
        assert closed.reason == "connection lost"
