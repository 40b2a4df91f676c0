"""The consumer while the provider is away, comes back, drops streams, or is asked to stop."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from peertunnel import sockets
from peertunnel.access import Access
from peertunnel.bind import REOPEN_PAUSES, bind
from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.given import Given
from peertunnel.endpoints import Endpoint, TcpEndpoint, UnixEndpoint
from peertunnel.events import ErrorOccurred, PathChanged, TunnelClosed, TunnelOpened, Warned
from peertunnel.expose import expose
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL, Node, NodeOptions, open_node
from peertunnel.protocols import yamux
from peertunnel.protocols.service import Service
from peertunnel.transport.stream import MuxedStream
from tests.clock import soon
from tests.node.pair import (
    LOOPBACK,
    PATIENCE,
    Log,
    echo,
    no_files_left,
    node,
    pair,
    receive_all,
    reset,
    target,
    until,
)

ANY_PORT = TcpEndpoint("127.0.0.1", 0)
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")


@asynccontextmanager
async def consumer(
    addresses: tuple[str, ...], wait: float = PATIENCE, local: Endpoint = ANY_PORT
) -> AsyncIterator[tuple[int, Log]]:
    """Run a consumer of whoever is at `addresses`; yield its port and its events."""
    log = Log()
    service = Service.from_addresses(addresses)
    listeners = await sockets.listen(local)
    async with node(()) as running, trio.open_nursery() as nursery:

        async def run() -> None:
            await bind(running, service, listeners, log, wait=wait, grace=0, stop=trio.Event())

        nursery.start_soon(run)
        yield listeners[0].getsockname()[1] if isinstance(local, TcpEndpoint) else 0, log
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dropping(drops: int) -> AsyncIterator[tuple[Host, Callable[[], int]]]:
    """Run a provider that resets its first streams unseen, and echoes on the others; and count its streams."""
    seen = 0
    async with open_host(Identity.ephemeral(), LOOPBACK) as host, trio.open_nursery() as nursery:

        async def serve(stream: MuxedStream) -> None:
            near, far = socket.socketpair()
            near.setblocking(False)
            nursery.start_soon(stream.splice, near)
            await echo(trio.SocketStream(trio.socket.from_stdlib_socket(far)))

        def accept(stream: MuxedStream) -> None:
            nonlocal seen
            seen += 1
            if seen <= drops:
                stream.abort()
            else:
                nursery.start_soon(serve, stream)

        host.serve(TUNNEL, accept)
        yield host, lambda: seen
        nursery.cancel_scope.cancel()


async def test_a_stream_that_was_dropped_unseen_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As rust-libp2p's streams are in a burst; what the client had sent is sent again."""
    monkeypatch.setattr("peertunnel.host.AGENT", "rust-libp2p/0.56")
    data = bytes(range(256)) * 100
    async with dropping(3) as (host, _), consumer(host.addresses) as (port, log):
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(data)
        await client.send_eof()
        assert await receive_all(client) == data
        (closed,) = await log.wait(TunnelClosed)
        assert closed.reason == "finished"
        assert len(log.all(TunnelOpened)) == 1


async def test_it_is_not_opened_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.host.AGENT", "rust-libp2p/0.56")
    async with dropping(1000) as (host, seen), consumer(host.addresses) as (port, _):
        client = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)
        assert seen() == len(REOPEN_PAUSES)


async def test_a_tunnel_that_cannot_be_opened_again_is_told_to_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peertunnel.host.AGENT", "rust-libp2p/0.56")
    monkeypatch.setattr(yamux, "FEW_STREAMS", 2)

    def drop(stream: MuxedStream) -> None:
        stream.muxed_conn.bears(yamux.MAX_STREAMS)
        for _ in range(2):  # which is as many as the consumer believes the connection to bear
            stream.muxed_conn.open_tunnel_at_once("/ipfs/ping/1.0.0")
        stream.abort()

    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as host,
        consumer(host.addresses, wait=1.0) as (port, log),
    ):
        host.serve(TUNNEL, drop)
        await log.wait(PathChanged)
        await trio.open_tcp_stream("127.0.0.1", port)
        await log.wait(ErrorOccurred)
        await log.wait(TunnelClosed)
        assert len(log.all(TunnelOpened)) == len(log.all(TunnelClosed)) == 1


async def test_a_stream_that_one_of_ours_resets_is_not_opened_again() -> None:
    """Its target refused; dialling it again for the same client would do nobody good."""
    async with dropping(1000) as (host, seen), consumer(host.addresses) as (port, _):
        client = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)
        assert seen() == 1


async def test_a_tunnel_waits_while_the_provider_has_enough_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign one, that is, since rust-libp2p would end the connection, and all tunnels with it."""
    monkeypatch.setattr("peertunnel.host.AGENT", "rust-libp2p/0.56")
    monkeypatch.setattr(yamux, "FEW_STREAMS", 2)
    async with dropping(0) as (host, seen), consumer(host.addresses, wait=3.0) as (port, log):
        open_ones = []
        for count in (1, 2):
            open_ones.append(await trio.open_tcp_stream("127.0.0.1", port))
            await log.wait(TunnelOpened, count)
        late = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(late)
        (error,) = await log.wait(ErrorOccurred)
        assert (error.code, seen()) == (4, 2) and "did not take" in error.message
        waiting = await trio.open_tcp_stream("127.0.0.1", port)
        await open_ones[0].aclose()
        for client in (open_ones[1], waiting):
            await client.send_all(b"hello")
            with trio.fail_after(PATIENCE):
                assert await client.receive_some() == b"hello"


async def test_one_of_ours_takes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamux, "FEW_STREAMS", 2)
    async with dropping(0) as (host, _), consumer(host.addresses) as (port, log):
        clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(5)]
        await log.wait(TunnelOpened, len(clients))


async def test_a_connection_waits_for_the_provider_and_is_reset_when_it_does_not_come() -> None:
    async with consumer((f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.ephemeral().peer_id}",), wait=0.3) as (
        port,
        log,
    ):
        client = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)
        (error,) = await log.wait(ErrorOccurred)
        assert error.code == 3


async def test_who_has_to_wait_for_a_descriptor_is_told_of() -> None:
    async with target(echo) as port, pair(port) as tunnel:
        await tunnel.consumer_log.wait(PathChanged)
        with socket.socket() as sock:
            with no_files_left():
                sock.connect(("127.0.0.1", tunnel.port))
                (warned,) = await tunnel.consumer_log.wait(Warned)
            assert "too many open files" in warned.message
            client = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await client.send_all(b"hello")
            with trio.fail_after(PATIENCE):
                assert await client.receive_some() == b"hello"


def held(place: object) -> int:
    """Count our sockets that are bound to a place, those of its accepted connections included."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(number))) as sock:
                    count += sock.getsockname() == place
    return count


@needs_proc
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_client_that_has_gone_is_not_kept_until_the_wait_is_over(kind: str, tmp_path: Path) -> None:
    """One that has only ended its own direction may still expect the answer."""
    identity, path = Identity.ephemeral(), str(tmp_path / "socket")
    with socket.create_server(("127.0.0.1", 0)) as free:
        later = f"/ip4/127.0.0.1/tcp/{free.getsockname()[1]}"
    end = TcpEndpoint("127.0.0.1", 0) if kind == "tcp" else UnixEndpoint(path)
    async with consumer((f"{later}/p2p/{identity.peer_id}",), local=end) as (port, log):
        place = ("127.0.0.1", port) if kind == "tcp" else path

        async def connect() -> trio.SocketStream:
            if kind == "unix":
                return await trio.open_unix_socket(path)
            return await trio.open_tcp_stream("127.0.0.1", port)

        told, silent, gone = [await connect() for _ in range(3)]
        await told.send_all(b"hello")
        for client in (told, silent):
            await client.send_eof()
        await until(lambda: held(place) == 4)
        if kind == "tcp":
            reset(gone)
        else:
            await gone.aclose()
        await until(lambda: held(place) == 3)
        async with target(echo) as served, provider(identity, later, served):
            with trio.fail_after(PATIENCE):
                assert await receive_all(told) == b"hello"
                assert await receive_all(silent) == b""
        assert not log.all(ErrorOccurred)


async def test_tunnels_work_again_soon_after_the_provider_has_returned() -> None:
    identity = Identity.ephemeral()
    async with target(echo) as target_port, trio.open_nursery() as nursery:
        stop, stopped, up = trio.Event(), trio.Event(), trio.Event()
        addresses: tuple[str, ...] = ()

        async def first() -> None:
            nonlocal addresses
            async with provider(identity, LOOPBACK[0], target_port) as addresses:
                up.set()
                await stop.wait()
            stopped.set()

        nursery.start_soon(first)
        await up.wait()
        async with consumer(addresses) as (port, _):
            await exchange(port)
            stop.set()
            await stopped.wait()
            async with provider(identity, addresses[0].rpartition("/p2p/")[0], target_port), soon(3):
                await exchange(port)


@asynccontextmanager
async def provider(identity: Identity, place: str, port: int) -> AsyncIterator[tuple[str, ...]]:
    """Run a provider of a port; yield its addresses."""
    async with (
        open_node(NodeOptions(identity=identity, listen=(place,), mdns=False)) as running,
        trio.open_nursery() as nursery,
    ):

        async def provide() -> None:
            service = Service.from_addresses(running.addresses)
            endpoint, everybody = TcpEndpoint(None, port), Access(is_public=True)
            await expose(running, service, endpoint, Log(), access=everybody, grace=0, stop=trio.Event())

        nursery.start_soon(provide)
        yield running.addresses
        nursery.cancel_scope.cancel()


async def exchange(port: int) -> None:
    """Send something through a tunnel and see it come back."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(b"hello")
        assert await client.receive_some() == b"hello"


async def test_running_tunnels_may_finish_when_the_provider_is_asked_to_stop() -> None:
    async with target(echo) as port, pair(port, grace=PATIENCE) as tunnel:
        client = await tunnel.connect()
        await client.send_all(b"one")
        assert await client.receive_some() == b"one"
        tunnel.stop_provider.set()
        await client.send_all(b"two")
        assert await client.receive_some() == b"two"
        await client.send_eof()
        assert await receive_all(client) == b""


async def test_running_tunnels_may_finish_when_the_consumer_is_asked_to_stop() -> None:
    async with target(echo) as port, pair(port, grace=PATIENCE) as tunnel:
        client = await tunnel.connect()
        await client.send_all(b"one")
        assert await client.receive_some() == b"one"
        tunnel.stop_consumer.set()
        await client.send_all(b"two")
        assert await client.receive_some() == b"two"
        with pytest.raises(OSError):
            await tunnel.connect()
        await client.send_eof()
        assert await receive_all(client) == b""


@pytest.mark.parametrize("who", ["provider", "consumer"])
async def test_tunnels_that_have_not_ended_when_the_grace_is_over_are_reset_at_both_ends(who: str) -> None:
    broken = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        await stream.send_all(b"go")
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(stream)
        broken.set()

    async with target(watch) as port, pair(port) as tunnel:
        await tunnel.consumer_log.wait(PathChanged)
        client = await tunnel.connect()
        assert await client.receive_some() == b"go"
        (tunnel.stop_provider if who == "provider" else tunnel.stop_consumer).set()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await receive_all(client)
        with trio.fail_after(PATIENCE):
            await broken.wait()
        for log in (tunnel.provider_log, tunnel.consumer_log):
            (closed,) = await log.wait(TunnelClosed)
            assert closed.reason.startswith("reset")


async def test_what_one_source_tells_does_not_displace_what_another_told() -> None:
    """A provider whose multicast announces an address that is out of reach is still dialled where the user said."""

    class Misleading:
        name = "a liar"

        async def announce(self, announcement: Announcement) -> None:
            await trio.sleep_forever()

        def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
            send, receive = trio.open_memory_channel[Candidate](1)
            assert service.peer_id is not None
            send.send_nowait(
                Candidate(service.peer_id, (f"/ip4/127.0.0.1/tcp/1/p2p/{service.peer_id}",), "wrong")
            )
            return receive

    async with node() as there, open_host(Identity.ephemeral(), ()) as host:
        here = Node(host, (Given(), Misleading()), NodeOptions(identity=Identity.ephemeral()))
        with trio.fail_after(PATIENCE):
            connection = await here.meet(Service.from_addresses(there.addresses), Log(), lambda refusal: None)
        assert str(connection.peer_id) == there.peer_id
