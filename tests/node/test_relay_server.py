"""A circuit relay over real connections: who gets a reservation or a circuit, who doesn't, and what each is told."""

import time

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr
from trio.testing import MockClock

from peertunnel.protocols.circuit import (
    HOP,
    MAX_MESSAGE,
    STOP,
    CircuitRefused,
    Limit,
    Status,
    Voucher,
    book,
    client,
    destination,
)
from peertunnel.protocols.circuit.book import MAX_PER_PEER_AND_NETWORK, STRANGERS_LIMIT, TTL
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.transport import relay_server
from peertunnel.transport.requests import read_message
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.way import Way
from tests.node.circuits import Peer, ask, network, read_all
from tests.node.pair import PATIENCE


async def refusal(asked: Peer, message: bytes) -> Status:
    """Ask what must be refused; return why it is."""
    _, answer = await ask(asked.connection, message)
    with pytest.raises(CircuitRefused) as refused:
        client.read_connected(answer)
    return refused.value.status


async def test_a_reservation_tells_all_that_a_client_needs() -> None:
    async with network(STRANGERS_LIMIT) as relay, relay.peer() as peer:
        granted = await peer.reserve()
        assert 0 <= time.time() + TTL - granted.expires_at < 60
        assert granted.voucher == Voucher(relay.host.peer_id, peer.peer_id, granted.expires_at)
        assert [str(Multiaddr(address)) for address in granted.addresses] == list(relay.host.addresses)
        assert granted.limit == STRANGERS_LIMIT
        renewed = await peer.reserve()
        assert renewed.expires_at >= granted.expires_at and renewed.addresses == granted.addresses
        assert relay.server.book.reservations == 1
        assert relay.server.answers == {("reserve", "ok"): 2}


async def test_both_ends_are_told_the_limit() -> None:
    async with network(Limit(7, 8)) as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        _, answer = await ask(caller.connection, client.connect(called.peer_id))
        assert client.read_connected(answer) == called.limit == Limit(7, 8)
        relay.trusted.add(caller.peer_id)
        _, answer = await ask(caller.connection, client.connect(called.peer_id))
        assert client.read_connected(answer) is called.limit is None


async def test_who_has_not_reserved_is_not_called() -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as other:
        assert await refusal(caller, client.connect(other.peer_id)) is Status.NO_RESERVATION
        assert await refusal(caller, client.connect(relay.host.peer_id)) is Status.NO_RESERVATION
        assert relay.server.answers == {("connect", "no_reservation"): 2}


async def test_nobody_calls_himself() -> None:
    async with network() as relay, relay.peer() as peer:
        await peer.reserve()
        assert await refusal(peer, client.connect(peer.peer_id)) is Status.PERMISSION_DENIED


@pytest.mark.parametrize("message", [b"", b"\x08\x07", b"\x08\x01", b"\xff\xff", encode_delimited(b"x" * 90)])
async def test_nonsense_is_called_that(message: bytes) -> None:
    async with network() as relay, relay.peer() as peer:
        assert await refusal(peer, message) is Status.MALFORMED_MESSAGE
        assert relay.server.answers == {("unknown", "malformed_message"): 1}


async def test_a_message_without_end_is_called_nonsense_too() -> None:
    async with network() as relay, relay.peer() as peer:
        stream = await peer.connection.open_tunnel(HOP)
        await stream.write(b"\xff\x7f")
        with trio.fail_after(PATIENCE), pytest.raises(CircuitRefused, match="malformed"):
            client.read_connected(await read_message(stream, MAX_MESSAGE))


@pytest.mark.parametrize(
    "message", [client.reserve(), client.connect("12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu")]
)
async def test_no_circuit_leads_into_another(message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network() as relay, relay.peer() as peer:
        await relay.until(lambda: bool(relay.host.all_connections()))
        (connection,) = relay.host.all_connections()
        monkeypatch.setattr(connection, "way", Way("relayed", "another relay"))
        assert await refusal(peer, message) is Status.PERMISSION_DENIED


async def test_a_reservation_ends_with_its_connection() -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        await called.connection.close()
        await relay.until(lambda: len(relay.host.all_connections()) == 1)
        assert await refusal(caller, client.connect(called.peer_id)) is Status.NO_RESERVATION
        assert relay.server.book.reservations == 0


async def test_a_reservation_ends_with_its_time(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "TTL", 100)
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        (kept,) = relay.host.connections(called.peer_id)
        assert kept.kept == 1
        mock_clock.autojump_threshold = 0.01
        await trio.sleep(60)
        await called.reserve()
        await trio.sleep(90)
        assert relay.server.book.reservations == 1
        await trio.sleep(11 + book.TICK)
        assert relay.server.book.reservations == 0 and kept.kept == 0
        assert await refusal(caller, client.connect(called.peer_id)) is Status.NO_RESERVATION


async def test_one_peer_does_not_have_all_circuits() -> None:
    async with network(STRANGERS_LIMIT) as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        circuits = [await caller.connect(called) for _ in range(MAX_PER_PEER_AND_NETWORK)]
        assert await refusal(caller, client.connect(called.peer_id)) is Status.RESOURCE_LIMIT_EXCEEDED
        circuits[0][1].abort()
        await relay.until(lambda: relay.server.book.circuits < MAX_PER_PEER_AND_NETWORK)
        await caller.connect(called)


async def test_who_calls_a_trusted_peer_is_still_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_UNLIMITED_PER_NETWORK", 2)
    async with network(STRANGERS_LIMIT) as relay, relay.peer() as caller, relay.peer() as called:
        relay.trusted.add(called.peer_id)
        await called.reserve()
        for _ in range(2):
            await caller.connect(called)
            assert called.limit is None
        assert await refusal(caller, client.connect(called.peer_id)) is Status.RESOURCE_LIMIT_EXCEEDED
        relay.trusted.add(caller.peer_id)
        await caller.connect(called)


async def test_a_circuit_without_limits_ends_when_neither_end_is_trusted_any_more(
    mock_clock: MockClock,
) -> None:
    async with network(STRANGERS_LIMIT) as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        limited, _ = await caller.connect(called)
        relay.trusted |= {caller.peer_id, called.peer_id}
        unlimited, _ = await caller.connect(called)
        mock_clock.autojump_threshold = 0.01
        relay.trusted.remove(caller.peer_id)
        await trio.sleep(2 * book.TICK)
        assert relay.server.book.circuits == 2
        relay.trusted.remove(called.peer_id)
        with pytest.raises(MuxedStreamReset), trio.fail_after(2 * book.TICK):
            await unlimited.read()
        assert not limited.is_closed and relay.server.book.circuits == 1


def answering(called: Peer, answer: bytes | None) -> None:
    """Have a destination answer calls with these bytes, or with a reset."""

    async def take(stream: MuxedStream) -> None:
        await read_message(stream, MAX_MESSAGE)
        if answer is None:
            stream.abort()
        else:
            await stream.write(answer)

    called.host.serve(STOP, lambda stream: called.host.nursery.start_soon(take, stream))


@pytest.mark.parametrize(
    "answer",
    [None, encode_delimited(destination.refuse(Status.PERMISSION_DENIED)), b"\x02\x08\x07", b"\xff\xff\x7f"],
)
async def test_a_destination_that_takes_no_call_is_reported(answer: bytes | None) -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        answering(called, answer)
        assert await refusal(caller, client.connect(called.peer_id)) is Status.CONNECTION_FAILED
        assert relay.server.book.circuits == 0
        called.host.stop_serving(STOP)
        assert await refusal(caller, client.connect(called.peer_id)) is Status.CONNECTION_FAILED


async def test_a_silent_destination_is_given_up(mock_clock: MockClock) -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        calls: list[MuxedStream] = []
        called.host.serve(STOP, calls.append)
        mock_clock.autojump_threshold = 0.01
        assert await refusal(caller, client.connect(called.peer_id)) is Status.CONNECTION_FAILED
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            await read_all(calls[0])


async def test_who_asks_nothing_is_dropped(mock_clock: MockClock) -> None:
    async with network() as relay, relay.peer() as peer:
        stream = await peer.connection.open_tunnel(HOP)
        mock_clock.autojump_threshold = 0.01
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        assert not relay.server._asking


async def test_a_peer_asks_only_so_much_at_once() -> None:
    async with network() as relay, relay.peer() as peer, relay.peer() as other:
        streams = [await peer.connection.open_tunnel(HOP) for _ in range(relay_server.MAX_ASKING_PER_PEER)]
        await relay.until(lambda: relay.server._asking["*"] == len(streams))
        with pytest.raises(MuxedStreamError):
            await ask(peer.connection, client.reserve())
        await other.reserve()
        streams[0].abort()
        await relay.until(lambda: relay.server._asking["*"] < len(streams))
        await peer.reserve()


async def test_a_network_asks_only_so_much_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_server, "MAX_ASKING_PER_NETWORK", 3)
    async with network() as relay, relay.peer() as peer, relay.peer() as neighbour:
        streams = [await peer.connection.open_tunnel(HOP) for _ in range(3)]
        await relay.until(lambda: relay.server._asking["*"] == len(streams))
        with pytest.raises(MuxedStreamError):
            await ask(neighbour.connection, client.reserve())
        streams[0].abort()
        await relay.until(lambda: relay.server._asking["*"] < len(streams))
        await neighbour.reserve()


async def test_a_request_that_fails_here_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with network() as relay, relay.peer() as peer:
        with monkeypatch.context() as broken:
            broken.setattr(relay.host, "sign", lambda data: data[0:0] + 1)
            with pytest.raises(MuxedStreamReset):
                await peer.reserve()
        await peer.reserve()


async def test_what_follows_a_request_at_once_belongs_to_the_circuit() -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        stream = await caller.connection.open_tunnel(HOP)
        await stream.write(encode_delimited(client.connect(called.peer_id)) + b"early")
        with trio.fail_after(PATIENCE):
            await read_message(stream, MAX_MESSAGE)
            assert await (await called._calls.receive()).read() == b"early"


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    async with network() as relay, relay.peer() as caller, relay.peer() as called:
        await called.reserve()
        calls: list[MuxedStream] = []
        called.host.serve(STOP, calls.append)
        stream = await caller.connection.open_tunnel(HOP)
        await stream.write(encode_delimited(client.connect(called.peer_id)))
        await relay.until(lambda: bool(calls))
        stream.abort()
        await relay.until(lambda: not any(c.has_streams for c in relay.host.connections(caller.peer_id)))
        await calls[0].write(encode_delimited(destination.accept_stop()))
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            await read_all(calls[0])
        await relay.until(lambda: not relay.server.book.circuits)
