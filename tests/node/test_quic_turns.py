"""Streams that want more than the engine has room for take turns."""

from collections.abc import Sequence
from typing import cast

import pytest

from peertunnel.streams import End
from peertunnel.transport import quic
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import PROTOCOL, hosts
from tests.node.pair import until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic import _engine
from peertunnel.transport.quic.connection import BATCH, QuicConnection
from peertunnel.transport.quic.flow import TURN

GREEDY = 16  # streams; their windows are larger than what the engine holds for all of them


class Greedy:
    """Sends without end, and takes in what comes."""

    def __init__(self, stream: MuxedStream) -> None:
        self._stream = stream
        stream.join(self)

    def stop(self) -> None:
        """Go on: nobody stops it."""

    def send_up(self) -> None:
        """Use up all the room there is."""
        connection = self._stream.muxed_conn
        while connection.send_window(self._stream.stream_id):
            connection.send(self._stream.stream_id, bytes(BATCH))

    def deliver(self, views: Sequence[memoryview], size: int) -> None:
        """Count what comes."""
        self._stream.received_bytes += size
        self._stream.consumed(size)

    def finish(self) -> None:
        """Go on."""

    def abort(self, end: End) -> None:
        """Stop, as nothing can be sent any more."""


def open_greedy(connection: MuxedConnection, count: int) -> None:
    """Open streams which all want to send."""
    for _ in range(count):
        Greedy(connection.open_tunnel_at_once(PROTOCOL)).send_up()


async def test_no_stream_starves() -> None:
    """The engine tells those first that were held up last: whoever is in between would never have its turn."""
    arrived = list[MuxedStream]()

    def accept(stream: MuxedStream) -> None:
        arrived.append(stream)
        Greedy(stream)

    async with hosts() as (server, _, near):
        server.serve(PROTOCOL, accept)
        open_greedy(near, GREEDY // 2)
        late = near.open_tunnel_at_once("/late/1.0.0")
        assert not near.send_window(late.stream_id)
        open_greedy(near, GREEDY // 2)
        await until(lambda: late.end is End.NOT_SPOKEN)
        await until(lambda: sum(stream.received_bytes > BATCH for stream in arrived) == GREEDY)


class Stingy:
    """An engine that has room for so many bytes, once."""

    def __init__(self, engine: _engine.Endpoint, room: int) -> None:
        self._engine = engine
        self._room = room

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def write(self, connection: int, stream: int, data: memoryview) -> int | None:
        """Take what there is room for."""
        room, self._room = min(self._room, len(data)), 0
        return self._engine.write(connection, stream, data[:room]) if room else 0


@pytest.mark.parametrize(
    ("room", "had_its_turn"), [(0, False), (TURN - 1, False), (TURN, True), (2 * TURN, True)]
)
async def test_a_few_bytes_are_no_turn(room: int, had_its_turn: bool) -> None:
    """Else the rest of a stream's header waits behind all others, for longer than its peer does."""
    async with hosts() as (_, _, near):
        assert isinstance(near, QuicConnection)
        stream = near._enrol(MuxedStream(near, cast(int, near._open_id())))
        near._engine = cast(_engine.Endpoint, Stingy(near._engine, room))
        near.send(stream.stream_id, bytes(2 * TURN))
        assert (near._flows[stream.stream_id].served > 0) is had_its_turn
