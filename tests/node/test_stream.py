"""A stream of a real connection between two hosts: back-pressure, ends, and who else is harmed."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from trio.testing import MockClock, wait_all_tasks_blocked

from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.protocols.multistream import Initiator
from peertunnel.protocols.yamux import HEADER_SIZE, INITIAL_WINDOW, MAX_PAYLOAD
from peertunnel.streams import End, Unavailable
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.yamux import YamuxConnection
from tests.clock import soon
from tests.node.pair import LOOPBACK, PATIENCE, until, yamux_of

PROTOCOL = "/test/1.0.0"


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """Yield both ends of one stream; the first belongs to the host that dialled."""
    arrived: list[MuxedStream] = []
    accepted = trio.Event()

    def accept(stream: MuxedStream) -> None:
        arrived.append(stream)
        accepted.set()

    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        server.serve(PROTOCOL, accept)
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        opened = await connection.open_tunnel(PROTOCOL)
        with trio.fail_after(PATIENCE):
            await accepted.wait()
        yield opened, arrived[0]


async def test_reads_see_what_was_written_and_then_the_end() -> None:
    async with streams() as (client, server):
        await client.write(b"ping")
        assert await server.read() == b"ping"
        await client.close_write()
        with pytest.raises(MuxedStreamEOF):
            await server.read()
        await server.write(b"pong")
        await server.close()
        assert await client.read() == b"pong"
        with pytest.raises(MuxedStreamEOF):
            await client.read()


async def test_an_end_waits_for_the_peers_consent() -> None:
    """Rust drops some streams of a burst: one whose end it had seen would come to us as an empty answer."""
    async with streams() as (client, _):
        stream = await client.muxed_conn.open_tunnel(PROTOCOL)
        stream.finish()
        assert client.muxed_conn.send_window(stream.stream_id) > 0, "its end is out already"
        with trio.fail_after(PATIENCE):
            while client.muxed_conn.send_window(stream.stream_id):
                await trio.lowlevel.checkpoint()
        assert stream._negotiation is None


async def test_a_reset_is_never_taken_for_an_end() -> None:
    async with streams() as (client, server):
        await client.write(b"half")
        assert await server.read() == b"half"
        client.abort()
        with pytest.raises(MuxedStreamReset):
            await server.read()
        with pytest.raises(MuxedStreamReset):
            await server.write(b"more")


async def test_a_lost_connection_is_never_taken_for_an_end() -> None:
    async with streams() as (client, server):
        yamux_of(client.muxed_conn)._channel.close()
        with pytest.raises(MuxedStreamReset):
            await server.read()
        with pytest.raises(MuxedStreamReset):
            await client.read()


async def test_a_writer_waits_for_a_reader_as_long_as_it_takes(mock_clock: MockClock) -> None:
    """Two minutes pass in a moment; the connection stays, since both ends answer pings."""
    async with streams() as (client, server):
        mock_clock.autojump_threshold = 0.02
        with trio.move_on_after(120) as waiting:
            await client.write(b"x" * INITIAL_WINDOW * 2)
        mock_clock.autojump_threshold = float("inf")
        assert waiting.cancelled_caught
        assert len(await server.read()) > 0


async def test_batches_are_small_while_messages_come() -> None:
    async with streams() as (client, server):
        connection = client.muxed_conn
        assert sum(map(len, connection.batch_views(INITIAL_WINDOW))) == INITIAL_WINDOW
        with trio.fail_after(PATIENCE):
            while sum(map(len, connection.batch_views(INITIAL_WINDOW))) != MAX_PAYLOAD:
                await server.write(b"?")
                await client.read()


async def test_a_window_that_filled_before_the_splice_is_released_by_it() -> None:
    async with streams() as (client, server), trio.open_nursery() as nursery:
        size = yamux_of(client.muxed_conn).session.send_window(client.stream_id)
        await client.write(b"x" * size)
        assert yamux_of(client.muxed_conn).session.send_window(client.stream_id) == 0
        with socket.create_server(("127.0.0.1", 0)) as listener:  # TCP takes a whole window at once
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        near.setblocking(False)
        await wait_all_tasks_blocked(0.2)  # nothing else on the connection may carry the release along
        assert len(server._inbox) == size
        nursery.start_soon(server.splice, near)
        async with soon(3):  # a ping would release it after 5 s
            drain = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            nursery.start_soon(_drain, drain)
            await client.write(b"y" * INITIAL_WINDOW)
        client.abort()


async def test_what_many_sockets_give_at_once_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streams() as (client, _), trio.open_nursery() as nursery:
        connection, fars = client.muxed_conn, []
        assert isinstance(connection, YamuxConnection)
        for _ in range(16):
            near, far = socket.socketpair()
            near.setblocking(False)
            fars.append(far)
            nursery.start_soon((await connection.open_tunnel(PROTOCOL)).splice, near)
        await wait_all_tasks_blocked(0.1)
        batches: list[int] = []
        all_sent, send = trio.Event(), connection._channel.send

        def count(*batch: bytes) -> None:
            batches.append(sum(map(len, batch)))
            if sum(batches) >= 16 * (HEADER_SIZE + 5):
                all_sent.set()
            send(*batch)

        monkeypatch.setattr(connection._channel, "send", count)
        for far in fars:
            far.send(b"12345")
        with trio.fail_after(PATIENCE):
            await all_sent.wait()
        assert len(batches) <= 2
        nursery.cancel_scope.cancel()
        for far in fars:
            far.close()


async def _drain(stream: trio.SocketStream) -> None:
    try:
        async for _ in stream:
            pass
    except trio.BrokenResourceError:
        pass


async def test_a_peer_that_does_not_speak_the_protocol_refuses_the_stream() -> None:
    async with streams() as (client, _):
        stream = await client.muxed_conn.open_tunnel("/nobody/speaks/this")
        near, far = socket.socketpair()
        near.setblocking(False)
        with trio.fail_after(PATIENCE):
            outcome = await stream.splice(near)
        assert outcome.end is End.NOT_SPOKEN
        far.close()


async def test_a_stream_that_is_aborted_while_it_is_negotiated_harms_nobody() -> None:
    """Hello and RST arrive in one batch: the session knows of the end before the answer is due."""
    async with streams() as (client, server):
        session = yamux_of(client.muxed_conn).session
        for protocol in ("/nobody/speaks/this", PROTOCOL):
            stream_id = session.open_stream(trio.current_time())
            session.send_data(stream_id, memoryview(Initiator(protocol).hello()))
            session.send_reset(stream_id)
            client.muxed_conn.flush()
        with trio.fail_after(PATIENCE):
            assert await client.muxed_conn.ping() >= 0
        assert server.muxed_conn.reason == ""


async def test_a_peer_that_breaks_the_protocol_loses_its_connection_and_nobody_elses() -> None:
    hosts = [open_host(Identity.ephemeral(), listen) for listen in (LOOPBACK, (), ())]
    async with hosts[0] as server, hosts[1] as good_client, hosts[2] as bad_client:
        good = await good_client.dial(server.peer_id, server.addresses, PATIENCE)
        bad = await bad_client.dial(server.peer_id, server.addresses, PATIENCE)
        await until(lambda: server.connections(bad_client.peer_id))
        (seen,) = server.connections(bad_client.peer_id)
        yamux_of(bad)._channel.send(b"\xff" * 12)
        with trio.fail_after(PATIENCE):
            await seen.event_closed.wait()
            await bad.event_closed.wait()
            assert await good.ping() >= 0
        assert seen.reason.startswith("protocol error")


async def test_a_dead_peer_is_noticed_and_its_streams_abort(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with streams() as (client, server):
        connection = yamux_of(server.muxed_conn)
        # The system's clock does not jump with ours: an ACK that it delays would look like slow progress.
        monkeypatch.setattr(connection._channel, "progressed", lambda: False)
        monkeypatch.setattr(yamux_of(client.muxed_conn).session, "receive", lambda data, now: [])
        monkeypatch.setattr(yamux_of(client.muxed_conn).session, "tick", lambda now: [])
        monkeypatch.setattr(yamux_of(client.muxed_conn).session, "deadline", lambda: float("inf"))
        monkeypatch.setattr(client.muxed_conn, "flush", lambda: None)  # the process hangs, its socket lives
        mock_clock.autojump_threshold = 0.02
        with trio.fail_after(15), pytest.raises(MuxedStreamReset):
            await server.read()
        mock_clock.autojump_threshold = float("inf")
        assert "silent" in connection.reason


async def test_a_machine_that_slept_does_not_take_its_peer_for_dead(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ping is under way when we stand still for a minute; its answer is read before we judge."""
    async with streams() as (_, server):
        connection = yamux_of(server.muxed_conn)
        monkeypatch.setattr(connection._channel, "progressed", lambda: False)
        connection.session.send_ping(trio.current_time())
        connection.flush()
        mock_clock.jump(60)
        mock_clock.autojump_threshold = 0.02
        await trio.sleep(3)
        mock_clock.autojump_threshold = float("inf")
        assert connection.reason == ""


async def test_a_closed_connection_says_so_and_leaves_nothing_behind() -> None:
    async with streams() as (client, server):
        await client.muxed_conn.close()
        with trio.fail_after(PATIENCE):
            await server.muxed_conn.event_closed.wait()
        assert server.end is not None
        with pytest.raises(Unavailable):
            await client.muxed_conn.open_tunnel(PROTOCOL)
