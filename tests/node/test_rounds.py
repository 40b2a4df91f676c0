"""A round that fails in a way that nobody foresaw is logged, and the next one comes after the pause that it has anyway."""

from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peertunnel import changes, expose, gate, keeper, paths, trust
from peertunnel.access import Access
from peertunnel.discovery import Candidate, dht
from peertunnel.discovery.dht import Dht
from peertunnel.discovery.rendezvous_server import RendezvousServer
from peertunnel.errors import StoreError
from peertunnel.events import AddressesChanged, PathChanged
from peertunnel.gate import Gate
from peertunnel.identity import Identity
from peertunnel.keeper import Keeper
from peertunnel.meeting import Meeting, NoProof
from peertunnel.node import Node
from peertunnel.paths import Paths
from peertunnel.portmap import PortMapper, mapper
from peertunnel.protocols.circuit.book import TICK as TICK_OF_RELAY
from peertunnel.protocols.rendezvous.book import TICK
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.relay_server import RelayServer
from peertunnel.transport.reservations import Reservations
from peertunnel.trust import Trust
from tests.node.pair import PATIENCE, Log, echo, node, pair, receive_all, target, until

SERVICE = Service("service", b"r" * 32)
STRANGER = "/ip4/127.0.0.1/tcp/1"


class Failing:
    """Fails in a way that nobody foresaw, so many times, and does the real thing then; notes when it was called."""

    def __init__(self, real: Any = None, times: float = float("inf")) -> None:
        self.called: list[float] = []
        self._real = real
        self._times = times

    def __call__(self, *details: Any) -> Any:
        self.called.append(trio.current_time())
        if len(self.called) <= self._times:
            raise RuntimeError("on purpose")
        return self._real(*details)


class Stub:
    """Has the given attributes only."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def stub(**attributes: Any) -> Any:
    """Give something that has these attributes only, and passes for anything."""
    return Stub(**attributes)


# -- the consumer ------------------------------------------------------------------------------------------------------


async def test_a_provider_is_sought_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    meet = Failing()
    with trio.move_on_after(2.5 * keeper.FAILURE_PAUSE):
        await Keeper(stub(meet=meet), SERVICE, Log()).run()
    first = meet.called[0]
    assert [when - first for when in meet.called] == [0, keeper.FAILURE_PAUSE, 2 * keeper.FAILURE_PAUSE]
    assert "on purpose" in caplog.text


async def test_keys_that_cannot_be_read_end_the_search() -> None:
    async def meet(*_: object) -> None:
        raise StoreError("on purpose")

    with pytest.raises(StoreError):
        await Keeper(stub(meet=meet), SERVICE, Log()).run()


async def test_what_a_provider_does_not_tell_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "request", Failing())
    async with node() as there, node(()) as here, trio.open_nursery() as nursery:
        kept = Keeper(here, Service.from_addresses(there.addresses), Log())
        nursery.start_soon(kept.run)
        with trio.fail_after(PATIENCE):
            await kept.connection()
            assert await kept.drops_streams()
        assert kept.is_connected
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_there_before", [True, False])
async def test_another_connection_is_proven(is_there_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node() as there, node(()) as here, trio.open_nursery() as nursery:
        prove = Failing(here.prove, 1)
        monkeypatch.setattr(here, "prove", prove)
        kept = Keeper(here, Service.from_addresses(there.addresses), Log())

        async def dial() -> MuxedConnection:
            return await here.host.dial(there.peer_id, there.addresses, PATIENCE)

        if is_there_before:
            await dial()
        nursery.start_soon(kept.run)
        with trio.fail_after(PATIENCE):
            await kept.connection()
        ways = kept._paths
        if not is_there_before:
            await dial()
        await until(lambda: prove.called)
        another = await dial()
        await until(lambda: ways is not None and another in ways)
        nursery.cancel_scope.cancel()


def circuit() -> Any:
    return stub(peer_id="peer", way=stub(kind="relayed"), get_transport_addresses=lambda: [STRANGER])


async def test_direct_addresses_are_tried_again(autojump_clock: MockClock) -> None:
    dial = Failing()
    here = stub(may_go_directly=True, host=stub(network_changed=trio.Event()), dial_directly=dial)
    began = trio.current_time()
    with trio.move_on_after(sum(keeper.DIRECT_PAUSES) + 1):
        await Keeper(here, SERVICE, Log())._try_directly(stub(best=circuit()))
    assert [when - began for when in dial.called] == [0, 60, 360, 1260]


async def test_a_circuit_is_renewed_after_growing_pauses(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_is_nearly_over", lambda circuit: True)
    dial = Failing()
    began = trio.current_time()
    with trio.move_on_after(10):
        await Keeper(stub(host=stub(dial=dial)), SERVICE, Log())._renew(stub(best=circuit()))
    assert [when - began for when in dial.called] == [0.5, 1, 2, 4, 8]


async def test_a_provider_is_checked_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_silent", silent := Failing())
    kept = Keeper(stub(), SERVICE, Log())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept._check, stub(all=[]))
        for _ in range(8):
            await trio.sleep(keeper.CHECK_INTERVAL / 2)
            kept._wanted.set()
        nursery.cancel_scope.cancel()
    assert 2 < len(silent.called) < 6


async def test_no_doubt_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Paths("peer", Log())
    way = stub(event_unavailable=trio.Event(), is_closed=False)
    ways.add(way)

    async def silent(_: object) -> list[Any]:
        return [way]

    monkeypatch.setattr(keeper, "_silent", silent)
    monkeypatch.setattr(Keeper, "_seek", Failing())
    with pytest.raises(RuntimeError):
        await Keeper(stub(), SERVICE, Log())._check_once(ways)
    assert not ways._doubted


async def test_a_way_that_does_not_close_is_closed_again(autojump_clock: MockClock) -> None:
    ways, close = Paths("peer", Log()), Failing()
    limitless = stub(limit=None, kind="direct")
    for _ in range(2):
        ways.add(stub(event_unavailable=trio.Event(), way=limitless, has_streams=False, close=close))
    with trio.move_on_after(3.5 * paths._LOOK):
        await ways.retire()
    assert len(close.called) == 3


async def test_a_way_on_trial_is_not_closed(autojump_clock: MockClock) -> None:
    ways, close = Paths("peer", Log()), Failing()
    limitless = stub(limit=None, kind="direct")
    for _ in range(2):
        ways.trial = stub(event_unavailable=trio.Event(), way=limitless, has_streams=False, close=close)
        ways.add(ways.trial)
    with trio.move_on_after(3.5 * paths._LOOK):
        await ways.retire()
    assert not close.called


# -- the provider ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["_tell_failures", "_revoke", "_send_away_strangers"])
async def test_a_gate_does_all_else_and_tries_again(
    failing: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Gate(stub(host=stub(stop_serving=str)), Service("service"), Access(), Log())
    steps = {name: Failing(trio.sleep, 0) for name in ("_tell_failures", "_revoke", "_send_away_strangers")}
    steps[failing] = Failing()
    for name, step in steps.items():
        monkeypatch.setattr(watched, name, step if name == failing else lambda step=step: step(0))
    with trio.move_on_after(3.5 * gate.LOOK):
        await watched.run()
    assert [len(step.called) for step in steps.values()] == [3, 3, 3]


async def test_all_that_are_off_the_list_go_before_it_is_told() -> None:
    closed: list[object] = []
    listed = [stub(peer_id=name, close=name) for name in "ab"]
    here = stub(may_carry=lambda _: True, host=stub(all_connections=lambda: listed, start_soon=closed.append))
    access = stub(admits_unproven=lambda _: True, has_changed=lambda: True, may_prove=lambda _: False)

    with pytest.raises(RuntimeError):
        await Gate(here, Service("service"), access, Failing())._revoke()
    assert closed == ["a", "b"]


async def test_consumers_are_sought_again(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Failing()
    monkeypatch.setattr(gate, "Meeting", lambda *_, **__: stub(run=run))
    here = stub(host=stub(), sources=(), may_dial=None)
    with trio.move_on_after(2.5 * gate.SEEKER_PAUSE):
        await Gate(here, SERVICE, Access(), Log()).reach_out()
    assert len(run.called) == 3


async def test_a_candidate_that_cannot_be_judged_costs_only_itself() -> None:
    async with node() as there, node(()) as here, trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Candidate](2)
        send.send_nowait(Candidate(Identity.ephemeral().peer_id, (STRANGER,), "a test"))
        send.send_nowait(Candidate(there.peer_id, there.addresses, "a test"))
        met, may_dial = list[MuxedConnection](), Failing(here.may_dial, 1)
        source = stub(find=lambda service: receive)
        meeting = Meeting(here.host, (source,), SERVICE, NoProof(met.append), may_dial=may_dial)
        nursery.start_soon(meeting.run)
        await until(lambda: met)
        assert str(met[0].peer_id) == there.peer_id
        nursery.cancel_scope.cancel()


async def test_a_consumers_path_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Paths):
        async def follow(self) -> None:
            await follow(super().follow)

    async def follow_now(real: Any) -> None:
        await real()

    follow = Failing(follow_now, 1)
    monkeypatch.setattr(expose, "Paths", Broken)
    async with target(echo) as port, pair(port) as joined:
        for _ in range(2):
            async with await joined.connect() as client:
                await client.send_all(b"hello")
                await client.send_eof()
                assert await receive_all(client) == b"hello"
        assert len(await joined.provider_log.wait(PathChanged)) == 1
    assert len(follow.called) == 2


async def test_other_addresses_are_told_though_they_could_not_be_read_once(
    autojump_clock: MockClock,
) -> None:
    class Moving:
        reads = 0

        @property
        def addresses(self) -> tuple[str, ...]:
            self.reads += 1
            if self.reads == 3:
                raise RuntimeError("on purpose")
            return ("before",) if self.reads < 3 else ("after",)

    log, moving = Log(), cast("Node", Moving())
    with trio.move_on_after(3.5 * expose.ADDRESS_INTERVAL):
        await expose._tell_addresses(moving, log)
    assert log.events == [AddressesChanged(("after",))]


# -- every node --------------------------------------------------------------------------------------------------------


async def test_routers_are_looked_for_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapper, "listen", listen := Failing())
    monkeypatch.setattr(mapper, "default_gateways", tuple)
    ports = Failing(tuple, 1)
    running = PortMapper(ports)
    with trio.move_on_after(1.5 * mapper._DEAF):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.run)
            await running.settled()
            assert len(ports.called) == 2
    assert len(listen.called) == 2


async def test_a_network_is_watched_again(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = ["b", "a", "", "a"]

    def network() -> frozenset[str]:
        if found := networks.pop() if networks else "b":
            return frozenset(found)
        raise RuntimeError("on purpose")

    async def note() -> None:
        changed.set()

    changed = trio.Event()
    monkeypatch.setattr(changes, "_network", network)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, note)
        with trio.fail_after(PATIENCE):
            await changed.wait()
        nursery.cancel_scope.cancel()


async def test_a_connection_is_told_to_all_who_watch() -> None:
    async with node() as there, node(()) as here:
        told: list[MuxedConnection] = []
        here.host.watch(Failing())
        here.host.watch(told.append)
        connection = await here.host.dial(there.peer_id, there.addresses, PATIENCE)
        assert told == [connection] and not connection.is_closed


async def test_records_in_the_dht_are_swept_again(autojump_clock: MockClock) -> None:
    peers = stub(answer=lambda *_, **__: None, stop_answering=str, peer_id=Identity.ephemeral().peer_id)
    node = Dht(peers, (), server=True)
    node._providers = stub(tick=(tick := Failing()))
    with trio.move_on_after(2.5 * dht._SWEEP):
        await node.run()
    assert len(tick.called) == 3


# -- the relay ---------------------------------------------------------------------------------------------------------


async def test_registrations_expire_although_one_round_failed(autojump_clock: MockClock) -> None:
    point = RendezvousServer(stub(answer=lambda *_, **__: None, stop_answering=str))
    point.book = stub(tick=(tick := Failing()))
    with trio.move_on_after(2.5 * TICK):
        await point.run()
    assert len(tick.called) == 3


async def test_a_list_is_read_again(autojump_clock: MockClock) -> None:
    reload = Failing()
    trusted = Trust(stub(stop_serving=str), stub(reload_if_changed=reload), None, Log())
    with trio.move_on_after(3.5 * trust.LOOK):
        await trusted.run()
    assert len(reload.called) == 3


@pytest.mark.parametrize(("is_found", "times"), [(False, range(15, 20)), (True, range(5, 8))])
async def test_a_relay_that_the_user_has_named_is_tried_often(
    is_found: bool, times: range, autojump_clock: MockClock
) -> None:
    """However long its line was down, a provider that can't be reached otherwise must not sleep on when it is back."""
    absent = Failing()
    kept = Reservations("me", stub(at_relay=absent))
    kept.take_found(True)
    kept.offer("a relay", ["/ip4/192.0.2.1/tcp/1"], is_found=is_found)
    with trio.move_on_after(60):
        await kept.run()
    assert len(absent.called) in times


async def test_reservations_expire_although_one_round_failed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RelayServer(stub(serve=lambda *_: None, stop_serving=str))
    monkeypatch.setattr(server, "_forget", forget := Failing())
    with trio.move_on_after(2.5 * TICK_OF_RELAY):
        await server.run()
    assert len(forget.called) == 3
