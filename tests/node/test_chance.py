"""Meeting by chance: who may ask for it, where packets go and how many, and what is left of it. NATs are in tests/nat."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.punch import MAX_MESSAGE, PROTOCOL, Mapping, Proposal, decode, encode
from peertunnel.transport import ports, punch
from peertunnel.transport.chance import Chance, ChanceError
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.hole import Hole
from peertunnel.transport.observed import Observed
from peertunnel.transport.ports import Pace, Sockets, probe
from peertunnel.transport.punch import HolePunching
from peertunnel.transport.quic.udp import UdpSocket
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.way import PUNCHED
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.node.test_punch import End, circuit
from tests.tools import need_quic

HERE, THERE = (Multiaddr(f"/ip4/{ip}/udp/4001/quic-v1").to_bytes() for ip in ("1.1.1.1", "9.9.9.9"))


@pytest.fixture(autouse=True)
def quic() -> None:
    need_quic()


@asynccontextmanager
async def end() -> AsyncIterator[End]:
    """Run a host on loopback that speaks QUIC, and would punch holes if there were reason to."""
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        yield End(host, HolePunching(host), [])


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[End, MuxedConnection, MuxedConnection]]:
    """Join two hosts by a circuit that one of them has called; that one, and both ends of the circuit."""
    async with end() as caller, end() as called:
        ours, theirs = await circuit(caller, called)
        await caller.host.nursery.start(caller.punching.run)
        yield caller, ours, theirs


async def asked(theirs: MuxedConnection) -> MuxedStream:
    stream = await theirs.open_tunnel(PROTOCOL)
    await stream.write(encode_delimited(encode(Proposal(Mapping.CHANGING, (THERE,)))))
    return stream


async def is_refused(theirs: MuxedConnection) -> bool:
    try:
        with trio.fail_after(PATIENCE):
            await (await asked(theirs)).read()
    except MuxedStreamReset:
        return True
    return False


# -- who may ask ------------------------------------------------------------------------------------------------------


async def test_only_a_proven_peer_may_ask_and_only_after_dcutr() -> None:
    async with joined() as (caller, ours, theirs):
        chance = caller.punching._chance
        assert await is_refused(theirs), "neither"
        ours.is_proven = True
        assert await is_refused(theirs), "DCUtR has not been tried"
        ours.is_proven = False
        chance.note(ours, [THERE])
        assert await is_refused(theirs), "it has proven nothing"
        ours.is_proven = True
        assert not await is_refused(theirs)


async def test_a_peer_that_tells_of_no_public_address_is_refused() -> None:
    async with joined() as (caller, ours, theirs):
        ours.is_proven = True
        caller.punching._chance.note(ours, [Multiaddr("/ip4/192.168.1.2/udp/4001/quic-v1").to_bytes()])
        assert await is_refused(theirs)


async def test_one_peer_at_a_time_may_ask_and_then_there_is_a_rest() -> None:
    async with joined() as (caller, ours, theirs):
        ours.is_proven = True
        caller.punching._chance.note(ours, [THERE])
        first = await asked(theirs)
        await until(caller.punching._chance._turn.locked)
        assert await is_refused(theirs), "another one is at it"
        first.abort()
        await until(lambda: not caller.punching._chance._turn.locked())
        assert await is_refused(theirs), "another one has just been"
        caller.punching._chance._rested_at = trio.current_time()
        assert not await is_refused(theirs)


@pytest.mark.parametrize("is_late", [False, True], ids=["proven", "proven late"])
async def test_the_peer_is_asked_when_a_hole_should_be_there_while_its_attempt_goes_on(
    is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_meet, ended, failed = Chance.may_meet, trio.Event(), trio.Event()

    async def in_vain(*_: object, **__: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    def proven_after_a_look(chance: Chance, circuit: MuxedConnection) -> bool:
        could, circuit.is_proven = may_meet(chance, circuit), True
        return could

    monkeypatch.setattr(Chance, "may_meet", proven_after_a_look)
    monkeypatch.setattr(Hole, "punch", in_vain)
    monkeypatch.setattr(Hole, "dial", in_vain)
    monkeypatch.setattr(HolePunching, "_own", lambda _: (THERE,))
    monkeypatch.setattr(punch, "SUSPENSE", 0.05)
    monkeypatch.setattr(punch, "ATTEMPT", 0.5 if is_late else PATIENCE)
    async with end() as caller, end() as called:
        punching = HolePunching(called.host, lambda _, __: failed.set())
        await caller.host.nursery.start(caller.punching.run)
        await called.host.nursery.start(punching.run)
        _, theirs = await circuit(caller, called)
        theirs.is_proven = not is_late
        with trio.fail_after(PATIENCE / 2):
            await failed.wait()
        assert is_late or not ended.is_set()


# -- what is agreed on ------------------------------------------------------------------------------------------------


async def ask(monkeypatch: pytest.MonkeyPatch, mapping: Mapping, place: bytes) -> str:
    """Ask a peer that answers so; return why nothing comes of it."""

    def answer(stream: MuxedStream) -> None:
        stream.muxed_conn.reactor.yield_soon()
        nursery.start_soon(_answer, stream)

    async def _answer(stream: MuxedStream) -> None:
        [proposal] = Delimited(MAX_MESSAGE).receive(await stream.read())
        assert isinstance(decode(proposal), Proposal)
        await stream.write(encode_delimited(encode(Proposal(mapping, (place,)))))
        with suppress(MuxedStreamError):
            await stream.read()
            stream.abort()  # whatever the turn was to be, it has had enough

    monkeypatch.setattr(Observed, "quic", (str(Multiaddr(HERE)),))
    async with end() as caller, end() as called, trio.open_nursery() as nursery:
        _, theirs = await circuit(caller, called)
        caller.host.serve(PROTOCOL, answer)
        chance = Chance(called.host)
        chance.note(theirs, [HERE])
        with pytest.raises(ChanceError) as raised, trio.fail_after(PATIENCE):
            await chance.ask(theirs)
        nursery.cancel_scope.cancel()
    return str(raised.value)


async def test_packets_go_only_where_the_peer_has_said_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Observed, "quic_mapping", Mapping.STEADY)
    assert "another address" in await ask(monkeypatch, Mapping.CHANGING, THERE)


async def test_two_symmetric_nats_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Observed, "quic_mapping", Mapping.CHANGING)
    assert "both ends map each destination to another port" in await ask(monkeypatch, Mapping.CHANGING, HERE)


async def test_two_nats_that_keep_their_ports_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Observed, "quic_mapping", Mapping.STEADY)
    assert "keep their ports" in await ask(monkeypatch, Mapping.STEADY, HERE)


@pytest.mark.parametrize(("sockets", "reason"), [(1, "has given up"), (None, "Too many open files")])
async def test_a_turn_that_ends_early_is_told(
    sockets: int | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer gives up, or we have no file left."""
    monkeypatch.setattr(Observed, "quic_mapping", Mapping.CHANGING)
    monkeypatch.setattr(Observed, "quic_observers", ())
    monkeypatch.setattr(Chance, "_places", lambda *_: [("127.0.0.1", 9)])  # nobody on the internet
    if sockets is None:
        monkeypatch.setattr(ports, "UdpSocket", _no_file_left)
    else:
        monkeypatch.setattr(ports, "SOCKETS", sockets)
    assert reason in await ask(monkeypatch, Mapping.STEADY, HERE)


def _no_file_left(_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_who_does_not_know_where_it_is_asks_nobody() -> None:
    async with end() as caller, end() as called:
        _, theirs = await circuit(caller, called)
        chance = Chance(called.host)
        chance.note(theirs, [HERE])
        with pytest.raises(ChanceError, match="over UDP"):
            await chance.ask(theirs)


async def test_a_peer_that_does_not_do_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Observed, "quic", (str(Multiaddr(HERE)),))
    async with end() as caller, end() as called:
        _, theirs = await circuit(caller, called)
        chance = Chance(called.host)
        chance.note(theirs, [HERE])
        with pytest.raises(ChanceError, match="does not know how"):
            await chance.ask(theirs)


# -- sockets and probes -----------------------------------------------------------------------------------------------


async def test_no_more_packets_than_are_allowed(autojump_clock: trio.testing.MockClock) -> None:
    pace, sent = Pace(), list[float]()
    for number in range(3000):
        if number == 1000:
            await trio.sleep(5)  # what was not sent then is not made up for
        await pace.wait()
        sent.append(trio.current_time())
    for first, last in zip(sent, sent[501:], strict=False):
        assert last - first >= 1.0
    assert sent[1023] - sent[0] < 8.0, "1,024 probes and a pause"


def endpoint(host: Host) -> tuple[str, int]:
    (place,) = [address for address in host.listening if "quic" in address]
    return "127.0.0.1", int(place.split("/")[4])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"))


@pytest.mark.parametrize("count", [1, 3])
async def test_a_socket_that_is_hit_becomes_the_connection_and_the_others_are_closed(count: int) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as opener,
        open_host(Identity.ephemeral(), LOOPBACK) as prober,
        trio.open_nursery() as nursery,
    ):
        assert opener.quic is not None and prober.quic is not None
        before = open_files()
        sockets = Sockets(
            opener.network, opener.quic, Pace(), ID.from_base58(prober.peer_id), endpoint(prober)
        )
        nursery.start_soon(sockets.run)
        with trio.fail_after(PATIENCE):
            await sockets.all_called.wait()
        assert open_files() >= ports.SOCKETS
        near = [udp.name[1] - 1 for udp in sockets._sockets[100 : 100 + count]]
        with prober.network.crossing(ID.from_base58(opener.peer_id), [("127.0.0.1", 0)], is_client=False):
            nursery.start_soon(probe, prober.quic, Pace(), "127.0.0.1", near)
            await until(lambda: opener.connections(prober.peer_id) and prober.connections(opener.peer_id))
            await until(lambda: open_files() <= before + 1)
        await until(lambda: len(prober.connections(opener.peer_id)) == 1)
        (ours,), (theirs,) = opener.connections(prober.peer_id), prober.connections(opener.peer_id)
        assert (
            (ours.way.kind, ours.is_initiator)
            == (theirs.way.kind, not theirs.is_initiator)
            == ("punched", True)
        )
        nursery.cancel_scope.cancel()
    await until(lambda: open_files() <= before)


async def test_a_connection_takes_its_socket_with_it() -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as one,
        open_host(Identity.ephemeral(), LOOPBACK) as other,
    ):
        assert one.quic is not None
        before = open_files()
        udp = UdpSocket(("0.0.0.0", 0))
        connection = await one.quic.dial_from(udp, ID.from_base58(other.peer_id), endpoint(other), PUNCHED)
        await one.network.take_in(connection)
        assert connection.local_port == udp.name[1]
        await connection.ping()
        await connection.close()
        await until(lambda: udp.sock.fileno() < 0)
        await until(lambda: open_files() <= before)


async def test_a_process_with_few_files_opens_fewer_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 100, hard))
    try:
        sockets = ports._open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert 20 <= len(sockets) <= 110 - ports.SPARE
    for udp in sockets:
        udp.close()
