"""Through a relay of our own: reserving, calling, and connections that are as good as any other."""

import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr

from peertunnel.errors import NotFound
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.address import split_address
from peertunnel.protocols.circuit import HOP, MAX_MESSAGE, STOP, CircuitRefused, Limit, client
from peertunnel.protocols.circuit import relay as wire
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.transport import circuits, handshakes, reservations
from peertunnel.transport.circuits import relay_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.relay_server import RelayServer
from peertunnel.transport.requests import read_message
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, no_files_left, other_address, until

PROTOCOL = "/test/1.0.0"
RELAY = "12D3KooWR2LXNYrEfUd1QV6xJz7YgZuigfgfdwScTLdfywJLuh5N"
Relay = tuple[Host, RelayServer]


@asynccontextmanager
async def relay(
    limit: Limit | None = None, identity: Identity | None = None, listen: tuple[str, ...] = LOOPBACK
) -> AsyncIterator[Relay]:
    async with (
        open_host(identity or Identity.ephemeral(), listen) as host,
        trio.open_nursery() as nursery,
    ):
        server = RelayServer(host, limit=limit)
        nursery.start_soon(server.run)
        yield host, server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def reserved(*relays: Host) -> AsyncIterator[Host]:
    """Run a host without a listening port, which can be reached through relays only."""
    async with open_host(Identity.ephemeral(), ()) as host, trio.open_nursery() as nursery:
        nursery.start_soon(host.reservations.run)
        for other in relays:
            host.reservations.offer(other.peer_id, other.addresses)
        await until_reserved(host, len(relays))
        yield host
        nursery.cancel_scope.cancel()


async def until_reserved(host: Host, count: int = 1) -> None:
    await until(lambda: len({relay_of(address) for address in host.addresses}) >= count)


async def echo(stream: MuxedStream) -> None:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)

    async def answer() -> None:
        local = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        async for data in local:
            await local.send_all(data)
        await local.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await stream.splice(ours)


async def call(stranger: Host, point: Host, provider: Host) -> MuxedStream:
    """Call a provider by hand, and say nothing once it has taken the call; raises CircuitRefused."""
    connection = await stranger.dial(point.peer_id, point.addresses, PATIENCE)
    stream = await connection.open_tunnel(HOP)
    await stream.write(encode_delimited(client.connect(provider.peer_id)))
    client.read_connected(await read_message(stream, MAX_MESSAGE))
    return stream


async def test_a_connection_through_a_relay_carries_both_ways_and_half_closes() -> None:
    async with (
        relay() as (point, server),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        provider.serve(PROTOCOL, lambda stream: provider.nursery.start_soon(echo, stream))
        assert all(relay_of(address) == point.peer_id for address in provider.addresses)
        connection = await client.dial(provider.peer_id, provider.addresses, PATIENCE)
        assert (connection.way.kind, connection.way.relay, connection.way.limit) == (
            "relayed",
            point.peer_id,
            None,
        )
        stream = await connection.open_tunnel(PROTOCOL)
        data = os.urandom(8 * 1024 * 1024)
        got = hashlib.sha256()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await stream.write(data)
                    await stream.close_write()

                nursery.start_soon(send)
                size = 0
                while size < len(data):
                    part = await stream.read(1 << 20)
                    got.update(part)
                    size += len(part)
        assert got.digest() == hashlib.sha256(data).digest()
        (inbound,) = provider.connections(client.peer_id)
        assert inbound.way.kind == "relayed" and not inbound.is_initiator
        await connection.close()
        with trio.fail_after(PATIENCE):
            await inbound.event_closed.wait()
        await until(lambda: not server.book.circuits)


async def test_the_limits_of_a_relay_are_known_and_a_cut_is_an_abort() -> None:
    async with (
        relay(Limit(120, 64 * 1024)) as (point, _),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        provider.serve(PROTOCOL, lambda stream: provider.nursery.start_soon(echo, stream))
        connection = await client.dial(provider.peer_id, provider.addresses, PATIENCE)
        limit = connection.way.limit
        assert limit is not None and limit.size == 64 * 1024
        assert limit.ends_at is not None and 100 < limit.ends_at - trio.current_time() <= 120
        stream = await connection.open_tunnel(PROTOCOL)
        with trio.fail_after(PATIENCE):
            await stream.write(bytes(100 * 1024))
            await connection.event_closed.wait()


async def test_a_relay_that_is_lost_is_reserved_at_again_when_it_returns() -> None:
    identity = Identity.ephemeral()
    async with relay() as (other, _), reserved(other) as provider:
        async with relay(identity=identity) as (point, _):
            listen = (point.addresses[0].rpartition("/p2p/")[0],)
            provider.reservations.offer(point.peer_id, point.addresses)
            await until_reserved(provider, 2)
        await until(lambda: {relay_of(address) for address in provider.addresses} == {other.peer_id})
        async with relay(identity=identity, listen=listen):
            await until_reserved(provider, 2)


async def test_a_named_relay_is_tried_again_though_found_ones_hold() -> None:
    identity = Identity.ephemeral()
    async with relay() as (one, _), relay() as (other, _), reserved() as provider:
        found = {one.peer_id, other.peer_id}
        async with relay(identity=identity) as (point, _):
            listen = (point.addresses[0].rpartition("/p2p/")[0],)
            provider.reservations.offer(point.peer_id, point.addresses)
            await until_reserved(provider)
            for relayed in (one, other):
                provider.reservations.offer(relayed.peer_id, relayed.addresses, is_found=True)
            provider.reservations.take_found(True)
            await until_reserved(provider, 2)
        await until(lambda: {relay_of(address) for address in provider.addresses} == found)
        async with relay(identity=identity, listen=listen):
            await until_reserved(provider, 3)


async def test_found_relays_make_way_for_named_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "_LEAST", 0.2)
    monkeypatch.setattr(reservations, "_MOST", 0.2)
    async with (
        relay() as (one, _),
        relay() as (other, _),
        relay() as (point, _),
        reserved() as provider,
    ):
        for relayed in (one, other):
            provider.reservations.offer(relayed.peer_id, relayed.addresses, is_found=True)
        provider.reservations.take_found(True)
        await until_reserved(provider, 2)
        provider.reservations.offer(point.peer_id, point.addresses)

        def has_made_way() -> bool:
            relays = {relay_of(address) for address in provider.addresses}
            return point.peer_id in relays and len(relays) == reservations.WANTED

        await until(has_made_way)


async def test_a_reservation_that_fails_unforeseen_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [KeyError("unforeseen")]

    async def introduce(connection: MuxedConnection) -> None:
        if failures:
            raise failures.pop()

    async with (
        relay() as (point, _),
        open_host(Identity.ephemeral(), ()) as host,
        trio.open_nursery() as nursery,
    ):
        host.introduce(introduce)
        nursery.start_soon(host.reservations.run)
        host.reservations.offer(point.peer_id, point.addresses)
        await until_reserved(host)
        assert "unforeseen" in caplog.text
        nursery.cancel_scope.cancel()


async def test_a_relay_that_nobody_named_is_used_only_where_it_may_be() -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        relay(listen=listen) as (point, server),
        open_host(Identity.ephemeral(), listen) as host,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(host.reservations.run)
        await host.dial(point.peer_id, point.addresses, PATIENCE)
        await until(lambda: host.observed.addresses)
        host.reservations.take_found(False)
        assert not server.book.reservations
        host.reservations.take_found(True)
        await until_reserved(host)
        nursery.cancel_scope.cancel()


async def test_a_relay_has_us_announce_nothing_that_nobody_can_read() -> None:
    """In binary an address may have 256 bytes, and as text more than anybody takes."""
    async with relay() as (point, _), reserved() as provider:
        named, public = point.addresses, "/ip4/8.8.8.8/tcp/1"
        point.add_addresses(lambda: [public + "/webrtc-direct" * 66, public])
        provider.reservations.offer(point.peer_id, named)
        await until_reserved(provider)
        assert f"{public}/p2p/{point.peer_id}/p2p-circuit/p2p/{provider.peer_id}" in provider.addresses
        assert all(split_address(address) for address in provider.addresses)


async def test_a_circuit_for_which_there_are_no_files_left_is_refused_and_the_next_one_stands() -> None:
    async with (
        relay() as (point, server),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        await client.dial(point.peer_id, point.addresses, PATIENCE)
        with no_files_left(), pytest.raises(NotFound, match="no room"):
            await client.dial(provider.peer_id, provider.addresses, PATIENCE)
        await until(lambda: not server.book.circuits)
        await client.dial(provider.peer_id, provider.addresses, PATIENCE)


async def test_a_found_relay_that_has_gone_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MAX_OFFERED", 2)
    nowhere = ["/ip4/127.0.0.1/tcp/1"]
    named, gone = Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
    async with (
        relay() as (point, _),
        open_host(Identity.ephemeral(), ()) as host,
        trio.open_nursery() as nursery,
    ):
        kept = host.reservations
        kept.take_found(True)
        kept.offer(named, nowhere)
        kept.offer(gone, nowhere, is_found=True)
        kept.offer(point.peer_id, point.addresses, is_found=True)
        assert [peer_id for peer_id, _ in kept.found] == [gone], "it has not been tried yet"
        nursery.start_soon(kept.run)

        def is_reserved() -> bool:
            kept.offer(point.peer_id, point.addresses, is_found=True)  # as often as it is met
            return {relay_of(address) for address in kept.addresses} == {point.peer_id}

        await until(is_reserved)
        kept.offer(gone, nowhere, is_found=True)
        assert kept._relays.keys() == {named, point.peer_id}
        nursery.cancel_scope.cancel()


async def test_silent_callers_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 4)
    monkeypatch.setattr(handshakes, "HANDSHAKE_PATIENCE", 0.1)
    async with (
        relay() as (point, server),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as stranger,
        open_host(Identity.ephemeral(), ()) as guest,
        trio.open_nursery() as nursery,
    ):
        asked, allow = list[None](), server.book.open

        def note(*who: Any, **how: Any) -> None:
            asked.append(None)
            allow(*who, **how)

        monkeypatch.setattr(server.book, "open", note)
        for _ in range(circuits.MAX_CALLS_PER_CALLER):
            nursery.start_soon(call, stranger, point, provider)
        await until(lambda: len(asked) == circuits.MAX_CALLS_PER_CALLER)
        with trio.fail_after(PATIENCE / 2):  # their handshakes would take 10 s each, four at a time
            await guest.dial(provider.peer_id, provider.addresses, PATIENCE)


async def test_one_silent_caller_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKE_PATIENCE", float("inf"))
    async with (
        relay() as (point, server),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as stranger,
        open_host(Identity.ephemeral(), ()) as guest,
    ):
        silent = [await call(stranger, point, provider) for _ in range(circuits.MAX_CALLS_PER_CALLER)]
        with pytest.raises(CircuitRefused):
            await call(stranger, point, provider)
        connection = await guest.dial(provider.peer_id, provider.addresses, PATIENCE)
        silent[0].abort()
        await until(lambda: server.book.circuits == len(silent))
        await connection.close()


async def test_a_hostile_relay_is_in_no_other_relays_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes as many calls as it can, all in the name of whoever would call through the other one."""
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", circuits.MAX_CALLS_PER_CALLER)
    monkeypatch.setattr(handshakes, "HANDSHAKE_PATIENCE", float("inf"))
    monkeypatch.setattr(circuits, "MAX_CALLS", circuits.MAX_CALLS_PER_CALLER)
    async with (
        relay() as (point, _),
        relay() as (hostile, _),
        reserved(point, hostile) as provider,
        open_host(Identity.ephemeral(), ()) as guest,
    ):
        (connection,) = hostile.connections(provider.peer_id)
        for _ in range(circuits.MAX_CALLS):
            stream = await connection.open_tunnel(STOP)
            await stream.write(encode_delimited(wire.call(guest.peer_id, None)))
            wire.check_accepted(await read_message(stream, MAX_MESSAGE))
        through = [address for address in provider.addresses if relay_of(address) == point.peer_id]
        await guest.dial(provider.peer_id, through, PATIENCE)
        with pytest.raises(NotFound):
            await guest.dial(provider.peer_id, set(provider.addresses) - set(through), PATIENCE)
        await connection.close()
        (kept,) = (way for way in provider.network.transports if isinstance(way, circuits.Circuits))
        await until(lambda: not kept._calls)


async def test_calls_from_a_relay_that_was_not_asked_are_refused() -> None:
    async with (
        relay() as (point, _),
        reserved(point) as provider,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        provider.reservations._relays[point.peer_id].is_trying = False
        with pytest.raises(NotFound):
            await client.dial(provider.peer_id, provider.addresses, PATIENCE)


async def test_without_a_reservation_there_is_no_circuit() -> None:
    async with relay() as (point, _), open_host(Identity.ephemeral(), ()) as client:
        stranger = Identity.ephemeral().peer_id
        with pytest.raises(NotFound, match="no reservation"):
            await client.dial(stranger, [f"{point.addresses[0]}/p2p-circuit/p2p/{stranger}"], PATIENCE)


@pytest.mark.parametrize(
    ("address", "relay"),
    [
        (f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit", RELAY),
        (f"/p2p/{RELAY}/p2p-circuit", RELAY),
        ("/ip4/192.0.2.1/tcp/1", None),
        ("/ip4/192.0.2.1/tcp/1/p2p-circuit", ""),
        (f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/ws/p2p-circuit", ""),
        ("/p2p-circuit", ""),
    ],
)
async def test_which_addresses_lead_through_a_relay(address: str, relay: str | None) -> None:
    assert relay_of(address) == relay
    can = bool(relay)
    async with open_host(Identity.ephemeral(), ()) as host:
        assert (
            any(
                way.can_dial(Multiaddr(address)) and way is not host.network.tcp
                for way in host.network.transports
            )
            is can
        )
