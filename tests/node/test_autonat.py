"""Asking others whether they reach us, and answering who asks: two and more hosts on one machine, over real sockets."""

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from multiaddr import Multiaddr

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.autonat import v1
from peertunnel.protocols.autonat.exchange import Client, DialRequested, Server
from peertunnel.protocols.autonat.findings import RETRY, Findings, Reachability
from peertunnel.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    DialResponse,
    DialStatus,
    Status,
    encode_dial_back,
)
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.identify import PROTOCOL as IDENTIFY
from peertunnel.protocols.kademlia.places import Scope
from peertunnel.transport import autonat, autonat_server
from peertunnel.transport.autonat import DialBacks, ask_v1
from peertunnel.transport.autonat_limits import MAX_REQUESTS_PER_PLACE, MAX_RUNNING_PER_PLACE, MINUTE, Limits
from peertunnel.transport.autonat_server import AutonatServer
from peertunnel.transport.candidates import place_at
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.reachability import OwnReachability
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, until

PUBLIC, PRIVATE, UNKNOWN = Reachability.PUBLIC, Reachability.PRIVATE, Reachability.UNKNOWN
ELSEWHERE = Multiaddr("/ip4/5.5.5.5/tcp/9").to_bytes()


@asynccontextmanager
async def host(listen: tuple[str, ...] = LOOPBACK) -> AsyncIterator[Host]:
    async with open_host(Identity.ephemeral(), listen) as opened:
        yield opened


@asynccontextmanager
async def server() -> AsyncIterator[tuple[Host, AutonatServer]]:
    async with host() as opened:
        answering = AutonatServer(opened)
        await opened.nursery.start(answering.run)
        yield opened, answering


def hears(asker: Host) -> DialBacks:
    dial_backs = DialBacks(asker.nursery)
    asker.serve(DIAL_BACK, dial_backs.accept)
    return dial_backs


def place(of: Host) -> bytes:
    return bytes(Multiaddr(of.addresses[0].rpartition("/p2p/")[0]).to_bytes())


def closed_place() -> bytes:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return bytes(Multiaddr(f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}").to_bytes())


async def meet(asker: Host, other: Host) -> MuxedConnection:
    return await asker.dial(other.peer_id, other.addresses, PATIENCE)


async def test_an_open_address_is_reached_and_a_closed_one_is_not() -> None:
    async with server() as (point, answering), host() as asker:
        connection, dial_backs = await meet(asker, point), hears(asker)
        assert await dial_backs.ask(connection, place(asker)) is True
        assert await dial_backs.ask(connection, closed_place()) is False
        await until(lambda: answering.answers == {("2", "ok"): 1, ("2", "dial_error"): 1})


async def test_version_1_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server() as (point, _), host() as asker:
        connection, own_id = await meet(asker, point), ID.from_base58(asker.peer_id)
        assert await ask_v1(connection, own_id, place(asker)) is True
        monkeypatch.setattr(autonat_server, "DIAL", 0.5)  # who answers no takes as long as it may
        assert await ask_v1(connection, own_id, closed_place()) is False
        assert await ask_v1(connection, own_id, ELSEWHERE) is None


async def test_somebody_else_s_address_is_not_reached() -> None:
    """What answers there is another peer, as after a lease has passed on."""
    async with server() as (point, _), host() as asker, host() as other:
        connection, dial_backs = await meet(asker, point), hears(asker)
        assert await dial_backs.ask(connection, place(other)) is False


async def test_a_peer_that_serves_nothing_gives_no_answer() -> None:
    async with host() as point, host() as asker:
        connection, dial_backs = await meet(asker, point), hears(asker)
        assert await dial_backs.ask(connection, place(asker)) is None
        assert await ask_v1(connection, ID.from_base58(asker.peer_id), place(asker)) is None


# -- servers that lie ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def liar(response: DialResponse, *, shows: bool) -> AsyncIterator[Host]:
    """Run a server that answers without dialling, and may show the nonce on the connection that is there."""
    async with host() as opened:

        async def answer(stream: MuxedStream) -> None:
            end = Server()
            while not (events := end.receive(await stream.read())):
                pass
            assert isinstance(events[0], DialRequested)
            if shows:
                shown = await stream.muxed_conn.open_tunnel(DIAL_BACK)
                await shown.write(encode_delimited(encode_dial_back(events[0].nonce)))
                with pytest.raises(MuxedStreamReset):
                    await shown.read()
            end.respond(response)
            await stream.write(end.outgoing())
            await stream.close()

        opened.serve(DIAL_REQUEST, lambda stream: opened.nursery.start_soon(answer, stream))
        yield opened


@pytest.mark.parametrize("dial_status", [DialStatus.OK, DialStatus.DIAL_BACK_ERROR])
@pytest.mark.parametrize("shows", [False, True], ids=["without a nonce", "nonce on the old connection"])
async def test_a_server_that_did_not_come_is_not_believed(
    dial_status: DialStatus, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autonat, "SHOW", 0.2)
    async with liar(DialResponse(Status.OK, 0, dial_status), shows=shows) as point, host() as asker:
        connection, dial_backs = await meet(asker, point), hears(asker)
        assert await dial_backs.ask(connection, place(asker)) is None


async def test_a_nonce_that_nobody_waits_for_is_refused() -> None:
    async with host() as stranger, host() as asker:
        hears(asker)
        connection = await meet(stranger, asker)
        stream = await connection.open_tunnel(DIAL_BACK)
        with pytest.raises(MuxedStreamReset), trio.fail_after(PATIENCE):
            await stream.read()


# -- what a server refuses ----------------------------------------------------------------------------------------


async def answer_to(asker: Host, point: Host, *places: bytes) -> DialResponse:
    """Ask, and give the answer; dial data that is asked for is sent."""
    connection = (asker.connections(point.peer_id) or [await meet(asker, point)])[0]
    stream, client = await connection.open_tunnel(DIAL_REQUEST), Client(places, secrets.randbits(64))
    client.ask()
    with trio.fail_after(PATIENCE):
        while True:
            await stream.write(client.outgoing())
            for answer in client.receive(await stream.read()):
                return answer


async def test_the_first_address_that_may_be_dialled_is() -> None:
    """A private one only where the asker is: nobody has our neighbours dialled."""
    neighbour = Multiaddr("/ip4/10.0.0.1/tcp/9").to_bytes()
    name = Multiaddr("/dns4/localhost/tcp/9").to_bytes()
    async with server() as (point, _), host() as asker:
        hears(asker)
        assert await answer_to(asker, point, neighbour, name, b"\xff") == DialResponse(Status.DIAL_REFUSED)
        answer = await answer_to(asker, point, neighbour, name, b"\xff", closed_place())
        assert answer == DialResponse(Status.OK, 3, DialStatus.DIAL_ERROR)


async def test_another_ip_address_costs_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autonat_server, "MAX_DELAY", 0.0)
    monkeypatch.setattr(autonat_server, "_choose", lambda addresses, asker: (0, ("127.0.0.2", 9)))
    received = 0

    class Counting(Server):
        def receive(self, data: bytes | bytearray | memoryview) -> list[object]:  # type: ignore[override]
            nonlocal received
            received += len(data)
            return list(super().receive(data))

    monkeypatch.setattr(autonat_server, "Server", Counting)
    async with server() as (point, answering), host() as asker:
        answer = await answer_to(asker, point, ELSEWHERE)
        assert answer == DialResponse(Status.OK, 0, DialStatus.DIAL_ERROR)
        assert received > 30_000
        for _ in range(3):
            answering._limits._elsewhere.extend([trio.current_time()] * 4)
        assert (await answer_to(asker, point, ELSEWHERE)).status is Status.REQUEST_REJECTED


async def test_who_asks_too_much_is_rejected() -> None:
    async with server() as (point, _), host() as asker:
        answers = [await answer_to(asker, point, b"\xff") for _ in range(MAX_REQUESTS_PER_PLACE + 1)]
        statuses = [answer.status for answer in answers]
        assert statuses == [Status.DIAL_REFUSED] * MAX_REQUESTS_PER_PLACE + [Status.REQUEST_REJECTED]


async def test_an_asker_that_says_nothing_loses_its_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autonat_server, "REQUEST", 0.1)
    async with server() as (point, answering), host() as asker:
        connection = await meet(asker, point)
        stream = await connection.open_tunnel(DIAL_REQUEST)
        with pytest.raises(MuxedStreamReset), trio.fail_after(PATIENCE):
            await stream.read()
        await until(lambda: answering.answers == {("2", "broken"): 1})
        assert not connection.is_closed


async def test_version_1_dials_the_asker_only() -> None:
    async with server() as (point, _), host() as asker, host() as other:
        connection = await meet(asker, point)
        stream = await connection.open_tunnel(v1.PROTOCOL)
        message = v1.Dial(ID.from_base58(other.peer_id).to_bytes(), (place(other),))
        await stream.write(encode_delimited(v1.encode(message)))
        with trio.fail_after(PATIENCE):
            answer = await stream.read()
        assert v1.decode(answer[1:]) == v1.DialResponse(v1.Status.BAD_REQUEST)


def test_limits() -> None:
    limits = Limits()
    with limits.running("a"), limits.running("a"):
        assert MAX_RUNNING_PER_PLACE == 2
        assert not limits.admit("a", 0.0)
        assert limits.admit("b", 0.0)
    assert [limits.admit("a", 0.0) for _ in range(13)] == [True] * 12 + [False]
    assert [limits.admit(str(number), 0.0) for number in range(48)] == [True] * 47 + [False]
    assert limits.admit("a", MINUTE)
    assert [limits.admit_elsewhere(0.0) for _ in range(13)] == [True] * 12 + [False]
    assert limits.admit_elsewhere(MINUTE)


# -- what follows -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def finding_out(asker: Host, mapped: list[str] | None = None) -> AsyncIterator[OwnReachability]:
    """Find out about addresses of this machine, too."""
    own = OwnReachability(asker, mapped=lambda: mapped or [], least=Scope.MACHINE)
    await asker.nursery.start(own.run)
    yield own


async def settled(own: OwnReachability) -> Reachability:
    with trio.fail_after(PATIENCE):
        while own.reachability is UNKNOWN:
            await own.changed()
    return own.reachability


async def test_a_host_that_is_reached_knows_so() -> None:
    async with server() as (point, _), host() as asker, finding_out(asker) as own:
        assert own.reachability is UNKNOWN
        await meet(asker, point)
        assert await settled(own) is PUBLIC
        assert own.addresses == (asker.addresses[0].rpartition("/p2p/")[0],)


async def test_a_host_that_is_not_reached_knows_so() -> None:
    nowhere = [str(Multiaddr(closed_place()))]
    async with (
        server() as (point, _),
        server() as (second, _),
        host(()) as asker,
        finding_out(asker, nowhere) as own,
    ):
        await meet(asker, point)
        await meet(asker, second)
        assert await settled(own) is PRIVATE
        assert own.addresses == ()


async def test_connections_that_stood_before_count_and_other_addresses_are_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peertunnel.transport.reachability.INTERVAL", 0.05)
    places = [str(Multiaddr(closed_place()))]
    async with server() as (point, answering), host(()) as asker:
        await meet(asker, point)
        async with finding_out(asker, places) as own:
            assert await settled(own) is PRIVATE
            places[:] = [str(Multiaddr(closed_place()))]
            await until(lambda: answering.answers["2", "dial_error"] == 2)


async def test_a_server_that_was_too_busy_to_say_so_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.transport.reachability.INTERVAL", 0.05)
    busy = 3

    async with server() as (point, _), host() as asker:

        def identify(stream: MuxedStream) -> None:
            nonlocal busy
            busy -= 1
            (stream.abort if busy >= 0 else partial(point._identify, stream))()

        point.serve(IDENTIFY, identify)
        await meet(asker, point)
        async with finding_out(asker) as own:
            assert await settled(own) is PUBLIC
        assert busy < 0


async def test_a_server_that_is_lost_before_its_next_question_has_no_answer() -> None:
    """Another question may fail, and drop it, in the moment between."""
    async with host() as asker:
        own, findings = OwnReachability(asker), Findings(is_own=True)
        (lost,) = findings.ask(["lost"], now=trio.current_time())
        await own._question(hears(asker), lost, place(asker), findings)
        assert findings.conclude([lost], trio.current_time()) is UNKNOWN
        assert findings.ask([lost], trio.current_time() + RETRY) == [lost]


async def test_a_look_that_fails_unforeseen_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("peertunnel.transport.reachability.INTERVAL", 0.05)
    failures = [KeyError("unforeseen")]

    def mapped() -> tuple[str, ...]:
        if failures:
            raise failures.pop()
        return ()

    async with server() as (point, _), host() as asker:
        own = OwnReachability(asker, mapped=mapped, least=Scope.MACHINE)
        await asker.nursery.start(own.run)
        await meet(asker, point)
        assert await settled(own) is PUBLIC
    assert "unforeseen" in caplog.text


async def test_what_was_announced_by_our_own_word_is_dropped_with_its_ground(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with server() as (point, _), host() as asker, finding_out(asker) as own:
        asker.add_addresses(lambda: own.addresses)
        await meet(asker, point)
        assert await settled(own) is PUBLIC
        monkeypatch.setattr(Host, "listening", ())  # as when an interface goes
        own.retry()
        await until(lambda: own.reachability is UNKNOWN and not own.addresses)
        await trio.testing.wait_all_tasks_blocked()
        assert own.reachability is UNKNOWN


async def test_who_calls_us_is_no_server_of_ours() -> None:
    async with server() as (point, answering), host() as asker, finding_out(asker):
        await meet(point, asker)
        await trio.sleep(0.3)
        assert not answering.answers


@pytest.mark.parametrize(
    ("address", "is_own", "is_mapped", "needs_relays"),
    [
        ("/ip4/9.9.9.9/tcp/4001", True, False, False),
        ("/ip4/9.9.9.9/tcp/4001", False, True, False),
        ("/ip4/9.9.9.9/tcp/4001", False, False, True),
        ("/ip6/2a00:1234::5/tcp/4001", True, False, True),
    ],
    ids=["own", "mapped", "only seen", "IPv6 only"],
)
async def test_relays_are_needed_until_everybody_reaches_us(
    address: str, is_own: bool, is_mapped: bool, needs_relays: bool
) -> None:
    """A router that lets in whom we have called lets the servers in; and who has no IPv6 doesn't reach it."""
    async with host() as asker:
        own = OwnReachability(asker, mapped=lambda: [address] * is_mapped)
        assert own.needs_relays
        findings = Findings(is_own=is_own)
        for server in ("first", "second"):
            findings.told(server, True, trio.current_time())
        own._findings = {place_at(address) or b"": findings}
        own._conclude()
        assert own.reachability is PUBLIC
        assert own.needs_relays is needs_relays
