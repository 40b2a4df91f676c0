"""A connection to a peer that reads nothing: what is kept for it is bounded, and what it should have got is not lost."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.multistream import HEADER, encode_line
from peertunnel.protocols.noise import Opener, Sealer
from peertunnel.protocols.yamux import INITIAL_WINDOW, MAX_REPLIES, Flag, FrameType, encode
from peertunnel.streams import End, Outcome
from peertunnel.transport.noise import NoiseChannel
from peertunnel.transport.pings import PROTOCOL
from peertunnel.transport.reactor import Reactor
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
