"""A tunnel carries bytes as TCP would: both ways, to the end, and never short without a reset."""

import hashlib
import socket

import pytest
import trio

from peertunnel import sockets
from peertunnel.endpoints import Endpoint
from peertunnel.events import ErrorOccurred, PathChanged, TunnelClosed, TunnelOpened
from tests.node.pair import PATIENCE, echo, pair, receive_all, reset, target, until

MIB = 1024 * 1024


async def test_bytes_and_ends_pass_both_ways() -> None:
    async with target(echo) as port, pair(port) as tunnel:
        client = await tunnel.connect()
        await client.send_all(b"hello")
        await client.send_eof()
        assert await receive_all(client) == b"hello"
        (closed,) = await tunnel.consumer_log.wait(TunnelClosed)
        assert (closed.sent_bytes, closed.received_bytes, closed.reason) == (5, 5, "finished")
        (closed,) = await tunnel.provider_log.wait(TunnelClosed)
        assert (closed.sent_bytes, closed.received_bytes, closed.reason) == (5, 5, "finished")


async def test_a_server_that_speaks_first_is_heard() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready\r\n")

    async with target(greet) as port, pair(port) as tunnel:
        assert await receive_all(await tunnel.connect()) == b"220 ready\r\n"


@pytest.mark.parametrize("size", [0, 1, 65_507, 65_508, 300_000, 8 * MIB, 64 * MIB])
async def test_what_arrives_is_what_was_sent(size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with target(echo) as port, pair(port) as tunnel, trio.open_nursery() as nursery:
        client = await tunnel.connect()

        async def send() -> None:
            await client.send_all(data)
            await client.send_eof()

        nursery.start_soon(send)
        received = hashlib.sha256()
        count = 0
        async for part in client:
            received.update(part)
            count += len(part)
        assert (count, received.digest()) == (size, hashlib.sha256(data).digest())


async def test_one_direction_goes_on_after_the_other_has_ended() -> None:
    async def answer_at_the_end(stream: trio.SocketStream) -> None:
        await stream.send_all(str(len(await receive_all(stream))).encode() * MIB)

    async with target(answer_at_the_end) as port, pair(port) as tunnel:
        client = await tunnel.connect()
        await client.send_all(b"x" * 7)
        await client.send_eof()
        assert await receive_all(client) == b"7" * MIB


async def test_a_clients_reset_reaches_the_target_as_a_reset() -> None:
    broken = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        await stream.send_all(b"go")
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(stream)
        broken.set()

    async with target(watch) as port, pair(port) as tunnel:
        client = await tunnel.connect()
        assert await client.receive_some() == b"go"
        reset(client)
        with trio.fail_after(PATIENCE):
            await broken.wait()


async def test_a_clients_reset_is_seen_although_the_target_reads_nothing() -> None:
    broken = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        await tunnel.provider_log.wait(TunnelClosed)
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(stream)
        broken.set()

    async with target(hang) as port, pair(port) as tunnel:
        client = await tunnel.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(64 * MIB))
            await tunnel.consumer_log.wait(TunnelOpened)
            (connection,) = tunnel.consumer.host.all_connections()
            streams = connection._streams
            await until(lambda: streams and not any(map(connection.send_window, streams)))
            nursery.cancel_scope.cancel()
        reset(client)
        with trio.fail_after(PATIENCE):
            await broken.wait()


async def test_a_targets_reset_reaches_the_client_as_a_reset() -> None:
    async def drop(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half of what was pro")
        assert await stream.receive_some() == b"ok"
        reset(stream)

    async with target(drop) as port, pair(port) as tunnel:
        client = await tunnel.connect()
        assert await client.receive_some() == b"half of what was pro"
        await client.send_all(b"ok")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)


async def test_a_refused_target_resets_the_client_and_is_reported_on_both_ends() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        async with pair(unused.getsockname()[1]) as tunnel:
            await tunnel.consumer_log.wait(PathChanged)
            client = await tunnel.connect()
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
                await receive_all(client)
            (error,) = await tunnel.provider_log.wait(ErrorOccurred)
            assert error.code == 6
            (closed,) = await tunnel.consumer_log.wait(TunnelClosed)
            assert closed.reason == "reset by the peer"


async def test_what_fails_unforeseen_at_a_target_resets_its_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(endpoint: Endpoint, seconds: float) -> socket.socket:
        raise RuntimeError("on purpose")

    async with target(echo) as port, pair(port) as tunnel:
        monkeypatch.setattr(sockets, "dial_at_once", lambda endpoint: None)
        monkeypatch.setattr(sockets, "dial", fail)
        client = await tunnel.connect()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)


async def test_a_slow_reader_stalls_only_its_own_tunnel() -> None:
    flood = b"x" * (4 * MIB)

    async def serve(stream: trio.SocketStream) -> None:
        kind = await stream.receive_some()
        await (stream.send_all(flood * 4) if kind == b"flood" else stream.send_all(b"quick"))

    async with target(serve) as port, pair(port) as tunnel:
        stalled = await tunnel.connect()
        await stalled.send_all(b"flood")
        await stalled.receive_some(1)
        for _ in range(20):
            quick = await tunnel.connect()
            await quick.send_all(b"?")
            with trio.fail_after(PATIENCE):
                assert await receive_all(quick) == b"quick"
        assert len(await receive_all(stalled)) == 4 * len(flood) - 1


async def test_fifty_tunnels_carry_bulk_both_ways_at_once() -> None:
    """The case in which a multiplexer whose reader writes stands still for ever."""
    data = bytes(range(256)) * 1600

    async with target(echo) as port, pair(port) as tunnel:

        async def exchange() -> None:
            async with await tunnel.connect() as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, data)
                received = b""
                while len(received) < len(data):
                    received += await client.receive_some()
            assert received == data

        with trio.fail_after(2 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(exchange)


async def test_every_tunnel_is_numbered_and_reported() -> None:
    async with target(echo) as port, pair(port) as tunnel:
        for _ in range(3):
            client = await tunnel.connect()
            await client.send_eof()
            assert await receive_all(client) == b""
        await tunnel.consumer_log.wait(TunnelClosed, 3)
        opened = tunnel.consumer_log.all(TunnelOpened)
        assert [event.tunnel for event in opened] == [1, 2, 3]
        assert {event.peer_id for event in opened} == {tunnel.provider.peer_id}


async def test_both_ends_tell_the_path_and_its_end() -> None:
    async with target(echo) as port, pair(port) as tunnel:
        (found,) = await tunnel.consumer_log.wait(PathChanged)
        assert (found.peer_id, found.path) == (tunnel.provider.peer_id, "direct")
        async with await tunnel.connect() as client:
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
        (seen,) = await tunnel.provider_log.wait(PathChanged)
        assert (seen.peer_id, seen.path) == (tunnel.consumer.peer_id, "direct")
        assert seen.rtt_ms is not None
        await tunnel.consumer.host.connections(tunnel.provider.peer_id)[0].close()
        assert (await tunnel.provider_log.wait(PathChanged, 2))[1].path == "none"
        assert (await tunnel.consumer_log.wait(PathChanged, 2))[1].path == "none"
