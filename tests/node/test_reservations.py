"""Reservations on a connection that the relay has opened, from a port at which nobody reaches it."""

import pytest
import trio

from peertunnel.host import open_host
from peertunnel.identity import Identity
from tests.node.board import Board, node_on, provider_on
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.node.test_circuits import relay, until_reserved


async def test_only_where_the_relay_listens_is_told() -> None:
    async with (
        relay() as (point, _),
        open_host(Identity.ephemeral(), LOOPBACK) as provider,
        trio.open_nursery() as nursery,
    ):
        await point.dial(provider.peer_id, provider.addresses, PATIENCE)
        (place, *_) = point.listening
        nursery.start_soon(provider.reservations.run)
        provider.reservations.offer(point.peer_id, [place])
        await until_reserved(provider, 2)  # an address without a relay counts, too
        circuits = [address for address in provider.addresses if "/p2p-circuit" in address]
        assert circuits == [f"{place}/p2p/{point.peer_id}/p2p-circuit/p2p/{provider.peer_id}"]
        nursery.cancel_scope.cancel()


async def test_the_relay_is_not_sent_away_as_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.gate.UNPROVEN_TIME", 0.2)
    board = Board()
    async with relay() as (point, _), provider_on(board) as provider, node_on(board, ()) as stranger:
        host = provider.host
        connection = await point.dial(host.peer_id, host.addresses, PATIENCE)
        host.start_soon(host.reservations.run)
        host.reservations.offer(point.peer_id, point.listening)
        await until_reserved(host, 2)
        other = await stranger.host.dial(host.peer_id, host.addresses, PATIENCE)
        await until(lambda: other.is_closed)
        assert not connection.is_closed
