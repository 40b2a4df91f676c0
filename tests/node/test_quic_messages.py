"""Messages beside bulk over QUIC: little of the bulk stands in front of them, as long as they come."""

import pytest
import trio
from trio.testing import MockClock

from peertunnel.protocols.yamux import MAX_PAYLOAD
from peertunnel.protocols.yamux.window import MESSAGES
from peertunnel.transport import quic
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import PROTOCOL, hosts, streams
from tests.node.pair import PATIENCE, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic.connection import BATCH, QuicConnection
from peertunnel.transport.quic.endpoint import BATCHES, FEW_BATCHES
from peertunnel.transport.quic.room import CEILING
from peertunnel.transport.quic.transport import STREAM_WINDOW
from peertunnel.transport.quic.udp import UdpSocket
from peertunnel.transport.tcp import SockAddress


def talk(stream: MuxedStream) -> None:
    """Send so many messages that more are expected."""
    for _ in range(MESSAGES + 1):
        stream.muxed_conn.send(stream.stream_id, b"?")


def taken(stream: MuxedStream) -> int:
    """Send all that is taken at once, before anything of it is acknowledged, and return how many bytes it was."""
    connection, size = stream.muxed_conn, 0
    assert isinstance(connection, QuicConnection)
    while connection.send_window(stream.stream_id):
        connection.send(stream.stream_id, bytes(BATCH))
        size += BATCH
    return size - len(connection._flows[stream.stream_id].unsent)


async def test_beside_messages_little_is_on_the_way() -> None:
    arrived = list[MuxedStream]()
    async with hosts() as (server, _, near):
        assert isinstance(near, QuicConnection)
        server.serve(PROTOCOL, arrived.append)
        near._room.round_trip = 0.0
        chat, beside, alone = [await near.open_tunnel(PROTOCOL) for _ in range(3)]
        await until(lambda: len(arrived) == 3)
        assert sum(map(len, near.batch_views(BATCH))) == BATCH
        talk(chat)
        assert sum(map(len, near.batch_views(BATCH))) == MAX_PAYLOAD
        assert taken(beside) <= CEILING
        await until(lambda: near.now() > near._endpoint.messages_until)
        assert taken(alone) > STREAM_WINDOW[1] - CEILING


async def test_where_the_round_trip_is_long_more_is_on_the_way() -> None:
    arrived = list[MuxedStream]()
    async with hosts() as (server, _, near):
        assert isinstance(near, QuicConnection)
        server.serve(PROTOCOL, arrived.append)
        chat, beside = [await near.open_tunnel(PROTOCOL) for _ in range(2)]
        await until(lambda: len(arrived) == 2)
        near._room.round_trip = 0.1
        talk(chat)
        assert taken(beside) > STREAM_WINDOW[1] - CEILING


async def test_the_shortest_round_trip_counts() -> None:
    async with hosts() as (_, _, near):
        assert isinstance(near, QuicConnection)
        near._room.round_trip = PATIENCE
        shortest = await near.ping()
        assert near._room.round_trip == shortest < PATIENCE
        near._room.round_trip = 0.0
        await near.ping()
        assert near._room.round_trip == 0.0


async def test_a_few_messages_hold_nothing_back() -> None:
    """Bulk ends in one or two, and begins with some."""
    arrived = list[MuxedStream]()
    async with hosts() as (server, _, near):
        assert isinstance(near, QuicConnection)
        server.serve(PROTOCOL, arrived.append)
        greeting, bulk = [await near.open_tunnel(PROTOCOL) for _ in range(2)]
        await until(lambda: len(arrived) == 2)
        near._room.round_trip = 0.0
        for _ in range(MESSAGES - 1):  # the greeting itself is one
            near.send(greeting.stream_id, b"?")
        assert taken(bulk) > STREAM_WINDOW[1] - CEILING


@pytest.mark.parametrize("is_talking", [True, False])
async def test_beside_messages_turns_are_short(
    is_talking: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Time stands still, so that no round trip was long, and the engine has nothing to spread over time."""
    calls: list[tuple[str, UdpSocket]] = []
    send, receive = UdpSocket.send, UdpSocket.receive

    def note_send(self: UdpSocket, data: bytes, segment: int, to: SockAddress, local: str | None) -> None:
        calls.append(("send", self))
        send(self, data, segment, to, local)

    def note_receive(self: UdpSocket) -> tuple[memoryview, int, SockAddress, str | None]:
        calls.append(("receive", self))
        return receive(self)

    async with streams() as (client, server):
        near, far = client.muxed_conn, server.muxed_conn
        assert isinstance(near, QuicConnection) and isinstance(far, QuicConnection)
        async with trio.open_nursery() as nursery:  # so that much may be on the way at once
            nursery.start_soon(client.write, bytes(8 << 20))
            left = 8 << 20
            while left:
                left -= len(await server.read())
        await near.ping()  # told that all has been read, it may send as much again
        if is_talking:
            talk(client)
            talk(server)
        monkeypatch.setattr(UdpSocket, "send", note_send)
        monkeypatch.setattr(UdpSocket, "receive", note_receive)
        near._engine.write(near.number, client.stream_id, bytes(STREAM_WINDOW[1]))
        near._endpoint.flush_now()
        in_one_turn = len(calls)
        for _ in range(3):
            near._endpoint.flush_now()
        calls.clear()
        far._endpoint._receive()
        received = calls.count(("receive", far._endpoint._udp))
    if is_talking:
        assert in_one_turn == received == FEW_BATCHES
    else:
        assert FEW_BATCHES < in_one_turn <= BATCHES and FEW_BATCHES < received <= BATCHES
