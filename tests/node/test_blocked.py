"""A connection to a peer that reads nothing: what is kept for it is bounded, and what it should have got is not lost."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.multistream import HEADER, encode_line
from peertunnel.protocols.noise import Opener, Sealer
from peertunnel.protocols.yamux import INITIAL_WINDOW, MAX_REPLIES, Flag, FrameType, encode
from peertunnel.streams import End, Outcome
from peertunnel.transport.channel import Buffer
from peertunnel.transport.noise import NoiseChannel
from peertunnel.transport.pings import PROTOCOL
from peertunnel.transport.reactor import READ, Reactor
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.yamux import YamuxConnection
from tests.node.pair import LOOPBACK, PATIENCE, until, yamux_of

STREAMS = 1000  # that ask without reading the answers
QUESTIONS = encode_line(HEADER) + encode_line("ls") * 60
TOGETHER = 100  # of them before they are aborted
FIRST = 1001  # the id of the first of them; above those that the hosts themselves have opened


@asynccontextmanager
async def hosts() -> AsyncIterator[tuple[Host, Host, YamuxConnection, YamuxConnection]]:
    """Yield a server, a client, and both ends of the connection between them."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as client,
    ):
        near = yamux_of(await client.dial(server.peer_id, server.addresses, PATIENCE))
        with trio.fail_after(PATIENCE):
            await until(lambda: server.all_connections())
            yield server, client, near, yamux_of(server.all_connections()[0])


def stop_reading(connection: YamuxConnection) -> None:
    """Leave everything that comes in the system's buffers."""
    connection._channel._registration.wait_for(0)  # type: ignore[attr-defined]


async def test_answers_that_nobody_reads_are_bounded() -> None:
    """Each stream is aborted after its questions, so that there is room for the next one."""
    async with hosts() as (_, _, near, far):
        stop_reading(near)
        sock = far._channel._sock  # type: ignore[attr-defined]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the system's own buffers take megabytes
        for first in range(FIRST, FIRST + 2 * STREAMS, 2 * TOGETHER):
            *asking, silent = range(first, first + 2 * TOGETHER, 2)
            for stream_id in asking:
                near.session._control += (
                    encode(FrameType.DATA, Flag.SYN, stream_id, len(QUESTIONS)) + QUESTIONS
                )
            near.session._control += encode(FrameType.WINDOW_UPDATE, Flag.SYN, silent, 0)
            near.flush()
            await until(lambda opened=silent: opened in far._streams)  # type: ignore[misc]
            for stream_id in (*asking, silent):
                near.session._control += encode(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
        assert far.session.queued < 2 * MAX_REPLIES
        assert not far.is_closed


async def test_what_has_not_left_is_sent_again_on_another_stream() -> None:
    """A stream that replays the start of a tunnel is dropped like the one before it, while the connection is blocked."""
    async with hosts() as (_, _, near, far):
        stop_reading(far)
        filling = await near.open_tunnel(PROTOCOL)
        while not near.is_blocked:
            near.session._streams[filling.stream_id].send_window = INITIAL_WINDOW
            near.send(filling.stream_id, bytes(INITIAL_WINDOW))
        outcomes = list[Outcome]()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            stream = near.open_tunnel_at_once(PROTOCOL)
            stream.attach(ours, outcomes.append, b"the start")
            stream.on_aborted(End.PEER_RESET)
        assert [outcome.replay for outcome in outcomes] == [b"the start"]
        near._end("the test is over")  # or it would wait for its peer


async def test_a_connection_that_is_being_closed_is_given_to_nobody() -> None:
    """Its peer is slow to hang up; who wants something of it meanwhile gets another connection."""
    async with hosts() as (server, client, near, far):
        stop_reading(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.close)
            await until(lambda: near.session.is_going_away)
            assert near.event_unavailable.is_set() and not near.is_closed
            answer = await client.request(
                server.peer_id, server.addresses, PROTOCOL, bytes(32), limit=32, within=PATIENCE
            )
            nursery.cancel_scope.cancel()
        assert answer is not None


async def test_a_channel_that_is_closed_is_watched_no_more() -> None:
    """It sent behind the peer's end, more than the socket took, and waited for room when it was closed."""
    reactor = Reactor()
    near, far = socket.socketpair()
    near.setblocking(False)
    with far:
        channel = NoiseChannel(near, reactor, Sealer(bytes(32)), Opener(bytes(32)), b"")
        far.shutdown(socket.SHUT_WR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run, lambda data: None, lambda: None)
            await trio.testing.wait_all_tasks_blocked()
            channel.on_readable()
            channel.send(bytes(2_000_000))
            assert channel.is_blocked
        channel.close()
        assert not reactor._watched


@pytest.mark.parametrize("is_blocked", [False, True])
async def test_the_end_of_the_last_stream_comes_to_a_peer_that_goes_away(is_blocked: bool) -> None:
    async with hosts() as (server, _, near, far):
        arrived: list[MuxedStream] = []
        server.serve("/test/1.0.0", arrived.append)
        stream = await near.open_tunnel("/test/1.0.0")
        await until(lambda: arrived)
        far.session.send_go_away()
        await arrived[0].close_write()
        await until(lambda: near.session.peer_is_going_away)
        stop_reading(far)
        sent = 0
        near._channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
        while is_blocked and not near.is_blocked:
            await stream.write(bytes(4096))
            sent += 4096
        await stream.close_write()
        far._channel._registration.wait_for(READ)  # type: ignore[attr-defined]
        got = b""
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamEOF):
            while True:
                got += await arrived[0].read()
        assert len(got) == sent


async def test_a_batch_that_cannot_be_sealed_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rode in front of it belongs to other streams, which must not go on as if nothing were missing."""
    async with hosts() as (server, _, near, _):
        arrived: list[MuxedStream] = []
        server.serve("/test/1.0.0", arrived.append)
        tunnels = [await near.open_tunnel("/test/1.0.0") for _ in range(2)]
        await until(lambda: len(arrived) == 2)
        seal = near._channel.seal  # type: ignore[attr-defined]

        def fail(batch: tuple[Buffer, ...]) -> tuple[memoryview, int]:
            near._channel.seal = seal  # type: ignore[attr-defined]
            raise MemoryError

        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            tunnels[1].attach(ours, lambda outcome: None)
            near.session.send_data(tunnels[0].stream_id, memoryview(b"small"))
            monkeypatch.setattr(near._channel, "seal", fail)
            theirs.sendall(bytes(30_000))
            with trio.fail_after(PATIENCE):
                await near.event_closed.wait()
        await until(lambda: arrived[0].end)
        assert arrived[0].end is End.LOST
