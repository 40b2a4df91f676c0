"""The QUIC engine beside peers that stop reading, and beside strangers who ask without end."""

import errno
import socket
from random import Random

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID

from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.streams import Unavailable
from peertunnel.transport import quic
from tests.node.hosts import hosts
from tests.node.pair import PATIENCE, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic import _engine
from peertunnel.transport.quic.connection import QuicConnection
from peertunnel.transport.quic.endpoint import BATCHES
from peertunnel.transport.quic.transport import Quic
from tests.node.quic_network import SERVER, Network, Weather, engine, happened

STREAMS = 16  # that engine() lets a peer have open
SIZE = 1200  # bytes of the shortest first datagram (RFC 9000, section 14.1)
# A long header of no version that anybody speaks, and two connection ids: it is answered with those that we do.
UNKNOWN = (bytes([0xC0]) + b"\x5a\x5a\x5a\x5b" + (b"\x08" + bytes(8)) * 2).ljust(SIZE, b"\0")


class Joined:
    """Two engines with a connection, and which streams the server has seen opened."""

    def __init__(self) -> None:
        self.client, self.server = engine(0), engine(1)
        self.network = Network(Random(1), Weather(delay=0.005), self.client, self.server)
        self.ours = self.client.connect(SERVER, 0.0)
        self.theirs = -1
        self.opened: list[int] = []
        self.network.run(self._step, lambda: self.theirs >= 0)

    def _step(self) -> None:
        happened(self.client)
        for kind, number, stream, _ in happened(self.server):
            if kind == "connected":
                self.theirs = number
            elif kind == "opened" and stream is not None:
                self.opened.append(stream)

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.network.now + seconds
        self.network.run(self._step, lambda: self.network.now >= end)


def test_a_stream_that_its_peer_stops_before_our_end_makes_room_for_another() -> None:
    """Rust's programs stop a stream when they drop it: its place was taken for ever, and after the last one nothing went."""
    joined = Joined()
    client, server = joined.client, joined.server
    for _ in range(2 * STREAMS):
        stream = client.open(joined.ours)
        assert stream is not None
        client.write(joined.ours, stream, b"request")
        client.finish(joined.ours, stream)
        joined.wait(0.1)
        client.reset(joined.ours, stream, sending=False)
        joined.wait(0.1)
        at_server, buffer = joined.opened.pop(), bytearray(100)
        assert server.read_into(joined.theirs, at_server, buffer) == (7, True)
        assert not server.finish(joined.theirs, at_server)
        joined.wait(0.1)


def turns(server: _engine.Endpoint, now: float) -> list[str]:
    """Send as much as an endpoint sends at a time; return to whom."""
    sent = []
    for _ in range(BATCHES):
        _, batch, _ = server.turn(44, now)
        if batch is not None:
            sent.append(batch[2][0])
    return sent


def test_answers_to_strangers_leave_half_of_each_turn_to_connections() -> None:
    joined = Joined()
    joined.wait(0.2)
    server, now = joined.server, joined.network.now
    stream = server.open(joined.theirs)
    assert stream is not None
    for _ in range(BATCHES):
        server.receive(UNKNOWN * 54, SIZE, ("198.51.100.7", 7), None, now)
    server.write(joined.theirs, stream, b"a byte of a tunnel")
    sent = turns(server, now)
    assert 0 < sent.count("198.51.100.7") <= BATCHES // 2
    assert set(sent) > {"198.51.100.7"}
    assert turns(server, now) == []


async def test_a_connection_that_has_ended_is_not_pinged() -> None:
    async with hosts() as (_, _, connection):
        assert isinstance(connection, QuicConnection)
        await connection.close()
        with pytest.raises(Unavailable):
            await connection.ping()
        assert connection not in connection._endpoint.pinging


async def test_an_address_of_ours_that_has_gone_says_nothing_of_a_peers() -> None:
    """Another connection to the same place still sends from there, until it hears of the change."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        place = silent.getsockname()
        async with open_host(Identity.ephemeral(), ("/ip4/0.0.0.0/tcp/0",), "quic") as host:
            (endpoint,) = next(one for one in host.network.transports if isinstance(one, Quic))._listening
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint.dial, ID.from_base58(Identity.ephemeral().peer_id), place)
                await trio.testing.wait_all_tasks_blocked()
                (dial,) = endpoint._dials.values()
                assert endpoint._leaves((bytes(SIZE), 0, place, "192.0.2.1"))
                assert not dial.done.is_set()
                nursery.cancel_scope.cancel()


async def test_a_peer_that_is_said_to_be_gone_and_answers_stays() -> None:
    """Anybody may send an ICMP message; tests/traffic/test_faults.py has peers that are gone."""
    async with hosts() as (_, _, connection):
        assert isinstance(connection, QuicConnection)
        connection._endpoint._give_up(connection.get_remote_address(), errno.ECONNREFUSED)
        assert connection._is_doubted
        with trio.fail_after(PATIENCE):
            await until(lambda: not connection._is_doubted)
        assert not connection.is_closed


async def test_nobody_can_keep_us_busy_with_ports_that_are_said_to_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0

    def look(_: object) -> tuple[str, int]:
        nonlocal looked
        looked += 1
        return ("192.0.2.1", 1)

    async with hosts() as (_, _, connection):
        assert isinstance(connection, QuicConnection)
        monkeypatch.setattr(QuicConnection, "get_remote_address", look)
        monkeypatch.setattr(connection._endpoint, "_now", lambda: 1000.0)
        for _ in range(1000):
            connection._endpoint._give_up(("192.0.2.2", 2), errno.ECONNREFUSED)
        assert looked == 1
