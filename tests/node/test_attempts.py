"""Proofs that are begun and never ended: what they count, and how many there are at a time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamError

from peertunnel.auth import PROOF_TIMEOUT, Authenticator
from peertunnel.budget import BURST, FIRST_INTERVAL, Origin
from peertunnel.errors import Refused
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.node.test_circuits import relay
from tests.node.test_gate import BOTH, GUESS, ROOT


@asynccontextmanager
async def guarded(
    on_failed: Callable[[str, str], None] = lambda peer_id, place: None,
) -> AsyncIterator[tuple[Host, Authenticator]]:
    """Run a host that takes proofs, and nothing else."""
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        authenticator = Authenticator(
            host, Role.PROVIDER, ROOT, on_proven=lambda connection: None, on_failed=on_failed
        )
        host.serve(AUTH, authenticator.accept)
        yield host, authenticator


async def test_a_guess_that_is_crowded_out_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply that it got says whether it was right, so it must not go for nothing."""
    monkeypatch.setattr("peertunnel.auth.MAX_ATTEMPTS", 1)
    told: list[str] = []
    async with (
        guarded(on_failed=lambda peer_id, place: told.append(peer_id)) as (there, authenticator),
        open_host(Identity.ephemeral(), ()) as stranger,
    ):
        connection = await stranger.dial(there.peer_id, there.addresses, PATIENCE)
        guess = await connection.open_tunnel(AUTH)
        with trio.fail_after(PROOF_TIMEOUT / 2):
            await guess.write(GUESS[0])
            assert await guess.read()
            await connection.open_tunnel(AUTH)
            with pytest.raises(MuxedStreamError):
                await guess.read()
        assert told == [stranger.peer_id] and authenticator._budget.failures == 1


@pytest.mark.parametrize("is_in", [True, False])
async def test_who_is_in_may_hang_up_on_another_connection(is_in: bool) -> None:
    """As a peer does that dials while it is dialled: that is no guess of a stranger."""
    told: list[str] = []
    async with (
        guarded(on_failed=lambda peer_id, place: told.append(peer_id)) as (there, authenticator),
        open_host(Identity.ephemeral(), ()) as peer,
    ):
        first, second = [await peer.dial(there.peer_id, there.addresses, PATIENCE) for _ in range(2)]
        cut = await second.open_tunnel(AUTH)
        await cut.write(GUESS[0])
        assert await cut.read()
        if is_in:
            await Authenticator(peer, Role.CONSUMER, ROOT, on_proven=lambda _: None).prove(first)
        await second.close()
        await until(lambda: not authenticator._attempts)
        assert (told, authenticator._budget.failures) == (([], 0) if is_in else ([peer.peer_id], 1))


async def test_attempts_that_come_all_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.auth.MAX_ATTEMPTS", 2)
    standing: list[int] = []
    async with guarded() as (there, authenticator):

        def accept(stream: MuxedStream) -> None:
            authenticator.accept(stream)
            standing.append(len(authenticator._attempts))

        there.serve(AUTH, accept)
        async with open_host(Identity.ephemeral(), ()) as stranger:
            connection = await stranger.dial(there.peer_id, there.addresses, PATIENCE)
            for _ in range(8):
                connection.open_tunnel_at_once(AUTH)
            await until(lambda: len(standing) == 8)
    assert max(standing) == 2


async def test_a_flood_through_a_relay_keeps_nobody_out_who_comes_through_it_too() -> None:
    """More guesses wait than there will be tokens for before the newcomer's time is over."""
    places: list[str] = []
    async with (
        relay() as (point, _),
        guarded(on_failed=lambda peer_id, place: places.append(place)) as (there, _),
        open_host(Identity.ephemeral(), ()) as stranger,
        open_host(Identity.ephemeral(), ()) as newcomer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(there.reservations.run)
        there.reservations.offer(point.peer_id, point.addresses)
        await until(lambda: there.reservations.addresses)
        way = [f"{address}/p2p-circuit" for address in point.addresses]
        flood = await stranger.dial(there.peer_id, way, PATIENCE)
        for _ in range(BURST + 2 * int(PROOF_TIMEOUT / FIRST_INTERVAL)):
            stream = await flood.open_tunnel(AUTH)
            for message in GUESS:
                await stream.write(message)
        await until(lambda: places)
        connection = await newcomer.dial(there.peer_id, way, PATIENCE)
        assert connection.way.kind == "relayed"
        await Authenticator(newcomer, Role.CONSUMER, ROOT, on_proven=lambda _: None).prove(connection)
        assert set(places) == {"relay 127.0.0.1"}
        nursery.cancel_scope.cancel()


async def test_too_many_proofs_push_out_those_of_the_peer_that_has_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peertunnel.auth.MAX_ATTEMPTS", 3)
    async with (
        guarded() as (there, _),
        open_host(Identity.ephemeral(), ()) as first,
        open_host(Identity.ephemeral(), ()) as second,
    ):
        waits, flood = [await host.dial(there.peer_id, there.addresses, PATIENCE) for host in (first, second)]
        honest = await waits.open_tunnel(AUTH)
        await honest.write(GUESS[0])
        await honest.read()
        strangers = [await flood.open_tunnel(AUTH) for _ in range(5)]
        with trio.fail_after(PROOF_TIMEOUT / 2):
            for stream in strangers[:3]:
                with pytest.raises(MuxedStreamError):
                    await stream.read()
        assert honest.end is None


async def test_too_many_peers_of_one_place_that_we_call_do_not_all_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peertunnel.auth.MAX_ATTEMPTS", 3)
    for interval in ("FIRST_INTERVAL", "LAST_INTERVAL"):
        monkeypatch.setattr(f"peertunnel.budget.{interval}", 10 * PATIENCE)
    refused: list[MuxedConnection] = []

    async def prove(connection: MuxedConnection) -> None:
        try:
            await authenticator.prove(connection)
        except Refused:
            refused.append(connection)

    async with guarded() as (here, authenticator), open_host(Identity.ephemeral(), BOTH) as there:
        for _ in range(BURST):
            await authenticator._budget.take(Origin("elsewhere", "somebody"))
        six, *four = [
            await here.dial(
                there.peer_id, [address for address in there.addresses if kind in address], PATIENCE
            )
            for kind in ("/ip6/", "/ip4/", "/ip4/", "/ip4/")
        ]
        async with trio.open_nursery() as nursery:
            for connection in (six, *four):
                nursery.start_soon(prove, connection)
                await trio.testing.wait_all_tasks_blocked()
            await until(lambda: refused)
            nursery.cancel_scope.cancel()
    assert refused == four[:1]
