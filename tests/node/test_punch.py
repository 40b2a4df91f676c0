"""From a circuit to a direct connection, between two hosts of one machine; NATs are in tests/nat."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from multiaddr import Multiaddr

from peertunnel.config import Transports
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.dcutr import PROTOCOL, Synchronised
from peertunnel.protocols.punch import PROTOCOL as CHANCE
from peertunnel.sockets import abort
from peertunnel.transport import dcutr, hole, punch
from peertunnel.transport.candidates import Target
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.hole import Hole
from peertunnel.transport.punch import HolePunching
from peertunnel.transport.quic import why_not
from peertunnel.transport.tcp import connect
from peertunnel.transport.way import Way
from tests.node.pair import LOOPBACK, PATIENCE, until, yamux_of
from tests.tools import lack

LISTENING: dict[Transports, tuple[str, ...]] = {
    "tcp": LOOPBACK,
    "quic": ("/ip4/127.0.0.1/udp/0/quic-v1",),
    "auto": LOOPBACK,
}
CIRCUIT = Way("relayed", "a relay")
ADDRESS = Multiaddr("/ip4/192.0.2.1/tcp/1/p2p-circuit")


@dataclass
class End:
    """A host and the direct connections that came of its hole punching."""

    host: Host
    punching: HolePunching
    punched: list[MuxedConnection] = field(default_factory=list)

    def direct(self, other: "End") -> list[MuxedConnection]:
        found = self.host.connections(other.host.peer_id)
        return [connection for connection in found if connection.way.kind != "relayed"]


@asynccontextmanager
async def end(*, serves: bool = True, transport: Transports = "tcp") -> AsyncIterator[End]:
    """Run a host on loopback that punches holes, or could."""
    punched: list[MuxedConnection] = []

    def note(connection: MuxedConnection) -> None:
        if connection.way.kind != "relayed":
            punched.append(connection)

    async with open_host(Identity.ephemeral(), LISTENING[transport], transport) as host:
        host.watch(note)
        punching = HolePunching(host)
        if serves:
            await host.nursery.start(punching.run)
        yield End(host, punching, punched)


async def circuit(caller: End, called: End) -> tuple[MuxedConnection, MuxedConnection]:
    """Join two hosts as a relay would; the two ends of the circuit."""
    ends: dict[bool, MuxedConnection] = {}

    async def secure(one: End, other: End, sock: socket.socket, is_client: bool) -> None:
        sock.setblocking(False)
        network, peer_id = one.host.network, ID.from_base58(other.host.peer_id)
        connection = await network.upgrader.upgrade(
            sock, peer_id, is_client=is_client, way=CIRCUIT, address=ADDRESS
        )
        await network.take_in(connection)
        ends[is_client] = connection

    left, right = socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, caller, called, left, True)
        nursery.start_soon(secure, called, caller, right, False)
    return ends[True], ends[False]


def hide_ports(*ends: End) -> None:
    """Have dials leave from ports that nobody expects, as behind a NAT that maps each connection anew."""
    for one in ends:
        one.host.network.tcp.sources = {}


def stop_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for the NATs, which stop the dials that come from any port."""

    async def nobody_answers(hole: Hole, targets: object) -> None: ...

    monkeypatch.setattr(Hole, "dial", nobody_answers)


@pytest.mark.parametrize("transport", LISTENING)
async def test_a_circuit_becomes_a_direct_connection_of_which_the_caller_is_the_client(
    transport: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport != "tcp" and (reason := why_not()):
        lack(reason)

    stop_strangers(monkeypatch)
    async with end(transport=transport) as caller, end(transport=transport) as called:
        await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
        assert {(conn.way.kind, conn.is_initiator) for conn in caller.punched} == {("punched", True)}
        assert {(conn.way.kind, conn.is_initiator) for conn in called.punched} == {("punched", False)}


async def test_a_peer_that_learns_late_to_punch_is_asked_again() -> None:
    """go-libp2p serves the protocol only once it knows a public address of its own."""
    async with end(serves=False) as caller, end() as called:
        _, theirs = await circuit(caller, called)
        await until(lambda: yamux_of(theirs).session.streams_unacknowledged == 0 and theirs.round_trip)
        await trio.sleep(punch.REFUSAL_PAUSES[0] / 2)  # it has been asked, and has refused
        await caller.host.nursery.start(caller.punching.run)
        await until(lambda: caller.punched and called.punched)


async def test_a_round_that_fails_unforeseen_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agree = dcutr.initiate
    failures = [KeyError("unforeseen")]

    async def initiate(circuit: MuxedConnection, own: tuple[bytes, ...]) -> Synchronised:
        if failures:
            raise failures.pop()
        return await agree(circuit, own)

    stop_strangers(monkeypatch)
    monkeypatch.setattr(punch, "initiate", initiate)
    async with end() as caller, end() as called:
        await circuit(caller, called)
        await until(lambda: "unforeseen" in caplog.text)
        called.punching.retry()
        await until(lambda: caller.punched and called.punched)


async def test_a_peer_that_does_not_punch_keeps_its_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "REFUSAL_PAUSES", (0.01, 0.01, 0.01))
    async with end(serves=False) as caller, end() as called:
        ours, theirs = await circuit(caller, called)
        await trio.sleep(0.5)
        assert not called.direct(caller)
        assert not ours.is_closed and not theirs.is_closed


async def test_another_circuit_and_other_networks_begin_another_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(punch, "REFUSAL_PAUSES", ())
    async with end(serves=False) as caller, end() as called:
        await circuit(caller, called)
        await trio.sleep(0.3)  # the round is over: it will be a minute until the next one
        await caller.host.nursery.start(caller.punching.run)
        await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
    async with end(serves=False) as caller, end() as called:
        await circuit(caller, called)
        await trio.sleep(0.3)
        await caller.host.nursery.start(caller.punching.run)
        called.punching.retry()
        await until(lambda: caller.punched and called.punched)


async def test_a_hole_that_has_closed_is_punched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_strangers(monkeypatch)  # or there may be two connections
    async with end() as caller, end() as called:
        await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
        with trio.fail_after(PATIENCE):
            while len(called.punched) == 1:
                for connection in called.direct(caller):  # the other end's dial may be through a moment later
                    await connection.close()
                await trio.sleep(0.01)


async def test_peers_take_turns_and_who_only_waits_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "MAX_ROUNDS", 1)
    monkeypatch.setattr(punch, "REFUSAL_PAUSES", ())
    async with end(serves=False) as unable, end() as one, end() as other, end() as called:
        circuits = [await circuit(caller, called) for caller in (unable, one, other)]
        await until(lambda: one.punched and other.punched)
        assert not unable.punched and not any(ours.is_closed for ours, _ in circuits)


async def test_a_circuit_that_has_ended_is_no_reason_to_wait_for_a_relapse() -> None:
    async with end() as caller, end() as called:
        ours, _ = await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
        await ours.close()
        await until(lambda: not called.punching._efforts)
        assert called.direct(caller)


async def test_a_peer_that_is_open_for_us_is_dialled_from_any_port() -> None:
    async with end() as caller, end() as called:
        hide_ports(caller, called)
        await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
        assert [(conn.way.kind, conn.is_initiator) for conn in called.punched] == [("direct", True)]


async def meet_at(listener: socket.socket, one: End, other: End) -> None:
    """Have one's next dial of a place come to the other, and wait until it has."""
    listener.setblocking(False)
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(listener.fileno())
    sock, _ = listener.accept()
    sock.setblocking(False)
    await other.host.network.accept(sock)
    await until(lambda: one.direct(other))


async def test_a_refused_dial_is_repeated() -> None:
    async with end() as one, end() as other:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))  # refuses, as it does not listen yet
            async with trio.open_nursery() as nursery:
                hole = Hole(one.host.network, None, nursery, ID.from_base58(other.host.peer_id))
                nursery.start_soon(
                    lambda: hole.punch([Target("tcp", place.getsockname())], 0.0, is_client=True)
                )
                await trio.sleep(0.1)
                place.listen()
                await meet_at(place, one, other)
                nursery.cancel_scope.cancel()


async def test_a_refused_dial_over_quic_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router refuses (ICMP) what comes before the other end has opened its own."""
    if (reason := why_not()) is not None:
        lack(reason)
    refused: list[bool] = []
    dial = Hole._try_quic

    async def note(*details: Any) -> bool:
        refused.append(not await dial(*details))
        return not refused[-1]

    monkeypatch.setattr(Hole, "_try_quic", note)
    monkeypatch.setattr(hole, "REDIAL_PAUSES", (0.05, 0.1))
    other = Identity.ephemeral()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    async with end(transport="quic") as one, trio.open_nursery() as nursery:
        quic = one.host.quic
        punched = Hole(one.host.network, quic, nursery, ID.from_base58(other.peer_id))
        nursery.start_soon(lambda: punched.punch([Target("quic", place)], 0.0, is_client=True))
        await until(lambda: any(refused))
        async with open_host(other, (f"/ip4/127.0.0.1/udp/{place[1]}/quic-v1",), "quic"):
            await until(lambda: one.host.connections(other.peer_id))
            nursery.cancel_scope.cancel()


async def test_a_dial_is_repeated_for_as_long_as_an_earlier_one_stands_in_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system has no second connection between two ports, as where one end only believes that it is connected."""
    monkeypatch.setattr(hole, "REDIAL_PAUSES", (0.001, 0.002))
    failed: list[int | None] = []
    dial = Hole._try

    async def note(*details: Any) -> int | None:
        failed.append(await dial(*details))
        return failed[-1]

    monkeypatch.setattr(Hole, "_try", note)
    async with end() as one, end() as other, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            place = listener.getsockname()
            earlier = await connect(place, one.host.network.tcp.source(place))
            punched = Hole(one.host.network, None, nursery, ID.from_base58(other.host.peer_id))
            nursery.start_soon(lambda: punched.punch([Target("tcp", place)], 0.0, is_client=True))
            await until(lambda: failed.count(errno.EADDRNOTAVAIL) > hole.REDIALS)
            abort(earlier)
            listener.accept()[0].close()
            await meet_at(listener, one, other)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_ours", [True, False])
async def test_only_with_others_the_roles_change_in_the_last_attempt(
    is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of go-libp2p before 0.41 have them the other way round; two of us would both be clients."""
    stop_strangers(monkeypatch)
    monkeypatch.setattr(punch, "ATTEMPT", 0.05)
    roles: list[bool] = []

    async def note(hole: Hole, targets: object, at: float, *, is_client: bool) -> None:
        roles.append(is_client)

    monkeypatch.setattr(Hole, "punch", note)
    async with end() as caller, end() as called:
        if not is_ours:
            caller.host.stop_serving(CHANCE)
        await circuit(caller, called)
        await until(lambda: len(roles) == 2 * punch.ATTEMPTS)
        assert roles.count(True) == punch.ATTEMPTS + (0 if is_ours else 1)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_a_dial_that_fails_unforeseen_ends_nothing_else(
    transport: Transports, caplog: pytest.LogCaptureFixture
) -> None:
    if transport == "quic" and (reason := why_not()) is not None:
        lack(reason)

    def look(connection: MuxedConnection) -> None:
        raise KeyError("unforeseen")

    async with end(transport=transport) as one, end(transport=transport) as other:
        one.host.watch(look)
        _, _, ip, _, port, *_ = other.host.addresses[0].split("/")
        hole = one.punching._hole(ID.from_base58(other.host.peer_id))
        await hole.dial([Target("quic" if transport == "quic" else "tcp", (ip, int(port)))])
        assert "unforeseen" in caplog.text


async def refused(connection: MuxedConnection) -> bool:
    stream = await connection.open_tunnel(PROTOCOL)
    try:
        with trio.fail_after(PATIENCE):
            await stream.read()
    except MuxedStreamReset:
        return True
    return False


async def test_only_who_answers_our_circuit_may_ask() -> None:
    async with end(serves=False) as caller, end() as called:
        ours, _ = await circuit(caller, called)
        assert await refused(ours), "the caller asks"
        direct = await caller.host.dial(called.host.peer_id, called.host.addresses, PATIENCE)
        assert await refused(direct), "nothing is to be punched"


async def test_a_peer_that_asks_again_and_again_is_refused() -> None:
    async with end() as caller, end(serves=False) as called:
        _, theirs = await circuit(caller, called)
        waiting = [await theirs.open_tunnel(PROTOCOL) for _ in range(punch.MAX_ANSWERS_PER_PEER)]
        assert await refused(theirs)
        assert all(stream.end is None for stream in waiting)


async def test_a_peer_that_grants_no_streams_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    if (reason := why_not()) is not None:
        lack(reason)
    monkeypatch.setattr("peertunnel.transport.quic.transport.STREAMS", 0)
    monkeypatch.setattr(dcutr, "EXCHANGE", 0.1)
    async with end(transport="quic") as asked, end(transport="quic") as asking:
        connection = await asking.host.dial(asked.host.peer_id, asked.host.addresses, PATIENCE)
        with trio.fail_after(PATIENCE), pytest.raises(dcutr.ExchangeError):
            await dcutr.initiate(connection, ())


async def test_nothing_is_left_when_it_ends() -> None:
    async with end() as caller, end() as called:
        hide_ports(caller, called)
        ours, _ = await circuit(caller, called)
        await until(lambda: caller.punched and called.punched)
        await ours.close()
        for connection in called.direct(caller):
            await connection.close()
        await until(lambda: not called.punching._efforts and not caller.punching._answers)
        assert not called.punching._awaited and not caller.punching._awaited
