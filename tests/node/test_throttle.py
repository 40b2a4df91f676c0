"""Which transport carries new tunnels where UDP may be slowed down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from peertunnel import throttle
from peertunnel.config import Transports
from peertunnel.events import Warned
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import Node, NodeOptions
from peertunnel.paths import Paths
from peertunnel.throttle import BUSY, LOOKS, SLOW, Suspicion, Throttle
from peertunnel.transport import quic
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.perf import PROTOCOL, Perf
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, Log, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")


@dataclass
class Scene:
    """A consumer with a connection over QUIC, as its keeper would have it."""

    server: Host
    client: Host
    connection: MuxedConnection
    paths: Paths
    log: Log
    throttle: Throttle

    @property
    def is_over_tcp(self) -> bool:
        best = self.paths.best
        return best is not None and best.transport == "tcp"

    def suspicion(self, rate: float) -> Suspicion:
        return Suspicion(self.connection, is_upwards=False, rate=rate)


def throttle_of(host: Host, log: Log) -> Throttle:
    return Throttle(Node(host, (), NodeOptions(identity=Identity.ephemeral())), log)


@asynccontextmanager
async def scene(provides: Transports = "auto") -> AsyncIterator[Scene]:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, provides) as server,
        open_host(Identity.ephemeral(), (), "auto") as client,
        trio.open_nursery() as nursery,
    ):
        perf = Perf(lambda connection: True, server.nursery)
        server.serve(PROTOCOL, perf.accept)
        udp = [address for address in server.addresses if "/udp/" in address]
        connection = await client.dial(server.peer_id, udp, PATIENCE)
        log = Log()
        paths = Paths(server.peer_id, log)
        paths.add(connection)

        async def join() -> None:
            async with client.newcomers(server.peer_id) as newcomers:
                async for newcomer in newcomers:
                    paths.add(newcomer)

        nursery.start_soon(join)
        nursery.start_soon(paths.retire)
        await trio.testing.wait_all_tasks_blocked()
        yield Scene(server, client, connection, paths, log, throttle_of(client, log))
        nursery.cancel_scope.cancel()


def slow_down(opened: Scene) -> None:
    """Let nothing come of what is measured over QUIC."""
    perf = Perf(lambda connection: True, opened.server.nursery)

    def accept(stream: MuxedStream) -> None:
        if stream.muxed_conn.transport == "tcp":
            perf.accept(stream)

    opened.server.serve(PROTOCOL, accept)


async def test_udp_that_carries_more_stays_whatever_the_transfer_wants() -> None:
    async with scene() as opened:
        await opened.throttle.look_into(opened.paths, opened.suspicion(BUSY))
        assert opened.client.connections(opened.server.peer_id) == [opened.connection]
        assert not opened.is_over_tcp and not opened.throttle.is_known and not opened.log.events


async def test_where_tcp_is_far_ahead_it_is_preferred_until_the_network_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throttle, "PROBE", 0.3)
    async with scene() as opened, trio.open_nursery() as nursery:
        slow_down(opened)
        await opened.throttle.look_into(opened.paths, opened.suspicion(BUSY))
        assert opened.is_over_tcp and opened.throttle.is_known
        (warning,) = opened.log.all(Warned)
        assert "UDP is slowed down" in warning.message
        again = Paths(opened.server.peer_id, opened.log)  # the provider was lost, and found again over QUIC
        again.add(opened.connection)
        again.add(opened.client.connections(opened.server.peer_id)[0])
        again.prefer(opened.paths.best)
        nursery.start_soon(opened.throttle.watch, again)
        await opened.client.note_changed_network()
        assert not opened.throttle.is_known
        await until(lambda: again.best is opened.connection)
        assert len(opened.log.all(Warned)) == 1
        nursery.cancel_scope.cancel()


async def test_a_later_connection_has_one_over_tcp_beside_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PROBE", 0.3)
    async with scene() as opened, trio.open_nursery() as nursery:
        slow_down(opened)
        await opened.throttle.look_into(opened.paths, opened.suspicion(BUSY))
        tcp = opened.paths.best
        assert tcp is not None
        nursery.start_soon(opened.throttle.watch, opened.paths)
        await tcp.close()
        await until(lambda: opened.is_over_tcp)
        assert opened.paths.best is not tcp and len(opened.log.all(Warned)) == 1
        nursery.cancel_scope.cancel()


async def test_where_tcp_is_no_faster_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PROBE", 0.3)
    monkeypatch.setattr(throttle, "FASTER", 1e9)
    async with scene() as opened:
        slow_down(opened)
        await opened.throttle.look_into(opened.paths, opened.suspicion(BUSY))
        assert not opened.is_over_tcp and not opened.throttle.is_known and not opened.log.events
        peer_id = opened.server.peer_id
        await until(lambda: opened.client.connections(peer_id) == [opened.connection])


async def test_a_provider_without_tcp_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PROBE", 0.3)
    async with scene("quic") as opened:
        slow_down(opened)
        await opened.throttle.look_into(opened.paths, opened.suspicion(BUSY))
        assert not opened.is_over_tcp and not opened.throttle.is_known and not opened.log.events


@pytest.mark.parametrize(
    ("rates", "is_suspect"),
    [
        ([BUSY] * LOOKS, True),
        ([SLOW - 1] * LOOKS, True),
        ([BUSY] * (LOOKS - 1) + [0], False),
        ([BUSY - 1] * LOOKS, False),
        ([SLOW] * LOOKS, False),
        ([BUSY, SLOW, BUSY], False),
    ],
)
@pytest.mark.parametrize("is_upwards", [True, False])
async def test_what_makes_a_transfer_suspect(
    rates: list[int], is_suspect: bool, is_upwards: bool, autojump_clock: trio.testing.MockClock
) -> None:
    class Counted:
        """What is looked at of a connection."""

        event_unavailable = trio.Event()
        looks = 0

        @property
        def carried(self) -> tuple[int, int]:
            total = sum(rates[: self.looks])
            self.looks += 1
            return (total, 0) if is_upwards else (0, total)

    async with open_host(Identity.ephemeral(), (), "tcp") as host:
        paths = Paths("peer", Log())
        counted: Any = Counted()
        paths._connections.append(counted)
        with trio.move_on_after((LOOKS + 0.5) * throttle.LOOK) as patience:
            found = await throttle_of(host, Log())._suspect(paths)
            assert found == Suspicion(counted, is_upwards, rates[-1])
        assert patience.cancelled_caught is not is_suspect
