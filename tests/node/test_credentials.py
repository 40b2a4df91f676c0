"""Whom we show that we know a service's secret: relays that the user has named, and that ask for it; nobody else."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
import trio

from peertunnel import credentials, sockets
from peertunnel.access import Access
from peertunnel.allowed import Allowed
from peertunnel.auth import PROOF_TIMEOUT
from peertunnel.bind import bind
from peertunnel.credentials import Credentials
from peertunnel.endpoints import TcpEndpoint
from peertunnel.events import PathChanged, Ready
from peertunnel.expose import expose
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions, open_node
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.circuit.book import STRANGERS_LIMIT
from peertunnel.protocols.service import Service
from peertunnel.transport.relay_server import RelayServer
from peertunnel.transport.stream import MuxedStream
from peertunnel.trust import Trust
from tests.node.pair import LOOPBACK, PATIENCE, Log, echo, target, until
from tests.node.test_circuits import until_reserved

ROOT, WRONG = b"r" * 32, b"w" * 32


@asynccontextmanager
async def relay(root: bytes | None) -> AsyncIterator[Host]:
    """Run a relay without limits for who proves a secret."""
    async with open_host(Identity.ephemeral(), LOOPBACK) as host, trio.open_nursery() as nursery:
        trust = Trust(host, Allowed((), None), root, lambda event: None)
        await nursery.start(trust.run)
        await nursery.start(RelayServer(host, trust.covers).run)
        yield host
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def provider(relay: Host, named: Iterable[str]) -> AsyncIterator[Host]:
    """Run a host that has reserved at a relay and knows the secret."""
    async with open_host(Identity.ephemeral(), ()) as host, trio.open_nursery() as nursery:
        host.introduce(Credentials(host, ROOT, named).show)
        host.reservations.offer(relay.peer_id, relay.addresses)
        nursery.start_soon(host.reservations.run)
        await until_reserved(host)
        yield host
        nursery.cancel_scope.cancel()


async def limit_of(provider: Host, client: Host) -> int | None:
    """Call the provider through the relay; return how many bytes the circuit carries."""
    limit = (await client.dial(provider.peer_id, provider.addresses, PATIENCE)).way.limit
    return None if limit is None else limit.size


async def reserve_anew(provider: Host, relay: Host) -> None:
    """Have the provider lose its connection to the relay, and reserve on another one."""
    (connection,) = provider.connections(relay.peer_id)
    await connection.close()
    await until(lambda: not provider.addresses)
    await until_reserved(provider)


async def test_who_proves_the_secret_has_no_limits_at_either_end() -> None:
    async with relay(ROOT) as point, open_host(Identity.ephemeral(), ()) as client:
        async with provider(point, [point.peer_id]) as ours:
            assert await limit_of(ours, client) is None
            await reserve_anew(ours, point)
            assert await limit_of(ours, client) is None
        async with provider(point, []) as another:
            assert await limit_of(another, client) == STRANGERS_LIMIT.bytes
            client.introduce(Credentials(client, ROOT, [point.peer_id]).show)
            assert await limit_of(another, client) is None


async def test_a_proof_that_fails_leaves_the_limits_and_is_not_given_again_soon() -> None:
    async with (
        relay(WRONG) as point,
        open_host(Identity.ephemeral(), ()) as client,
        provider(point, [point.peer_id]) as ours,
    ):
        assert await limit_of(ours, client) == STRANGERS_LIMIT.bytes
        shown: list[MuxedStream] = []
        point.serve(AUTH, shown.append)
        await reserve_anew(ours, point)
        assert not shown


@pytest.mark.parametrize("is_named", [True, False])
async def test_who_is_not_named_or_asks_for_no_proof_is_shown_none(
    is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(None) as point, open_host(Identity.ephemeral(), ()) as client:
        shown: list[MuxedStream] = []
        point.serve(AUTH, shown.append)
        if is_named:  # it would take a proof, and does not say so
            route = point.route
            point.stop_serving(AUTH)
            monkeypatch.setattr(point, "speaks", lambda protocol: True)
            monkeypatch.setattr(
                point, "route", lambda stream: (shown.append if stream.protocol == AUTH else route)(stream)
            )
        async with provider(point, [point.peer_id] if is_named else []) as ours:
            assert await limit_of(ours, client) == STRANGERS_LIMIT.bytes
        assert not shown


async def test_a_relay_that_does_not_answer_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PATIENCE", 0.2)
    began = trio.current_time()
    async with relay(None) as point:
        shown: list[MuxedStream] = []
        point.serve(AUTH, shown.append)
        async with provider(point, [point.peer_id]) as ours:
            assert len(shown) == 1 and trio.current_time() - began < PROOF_TIMEOUT
            await reserve_anew(ours, point)
            assert len(shown) == 1


@asynccontextmanager
async def exposed(relays: tuple[str, ...]) -> AsyncIterator[Node]:
    """Provide a service by a node that can be reached through relays only, and yield it."""
    options = NodeOptions(identity=Identity.ephemeral(), listen=(), mdns=False, relays=relays)
    async with target(echo) as port, open_node(options) as node, trio.open_nursery() as nursery:
        rules, nowhere, log = Access(), TcpEndpoint(None, port), Log()
        service = Service("service", ROOT)

        async def provide() -> None:
            await expose(node, service, nowhere, log, access=rules, grace=0, stop=trio.Event())

        nursery.start_soon(provide)
        await log.wait(Ready)
        yield node
        nursery.cancel_scope.cancel()


async def test_a_provider_shows_its_secret_to_the_relay_that_it_was_given() -> None:
    async with (
        relay(ROOT) as point,
        exposed(point.addresses) as node,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        await until_reserved(node.host)
        assert await limit_of(node.host, client) is None


async def test_a_consumer_shows_its_secret_to_the_relay_in_its_link() -> None:
    async with relay(ROOT) as point, exposed(()) as node:
        node.host.reservations.offer(point.peer_id, point.addresses)  # nobody has named it to the provider
        await until_reserved(node.host)
        places = tuple(f"{address}/p2p-circuit/p2p/{node.peer_id}" for address in point.addresses)
        link = Service("service", ROOT, node.peer_id, places)
        options = NodeOptions(identity=Identity.ephemeral(), listen=(), mdns=False)
        async with open_node(options) as consumer, trio.open_nursery() as nursery:
            log, listeners = Log(), await sockets.listen(TcpEndpoint("127.0.0.1", 0))

            async def consume() -> None:
                await bind(consumer, link, listeners, log, wait=PATIENCE, grace=0, stop=trio.Event())

            nursery.start_soon(consume)
            (path,) = await log.wait(PathChanged)
            assert (path.path, path.limit_bytes) == ("relayed", None)
            nursery.cancel_scope.cancel()
