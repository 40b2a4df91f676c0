"""Many tunnels, after each other and at once; many connections between peers; what idle tunnels cost."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL
from tests.interop.peers import Running
from tests.node.pair import echo
from tests.traffic.processes import Forwarding, forwarding, held_port, lasting, until
from tests.traffic.streams import MIB, expect, noise, receive_exactly, send

SECONDS = 150  # for one test, on a busy machine
RELEASE_SECONDS = 10  # for the processes to close what is no longer used
IDLE_TUNNELS = 1000
IDLE_MEMORY = 40 * MIB  # bytes that a process may grow by for them


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where each test has its own server."""
    with held_port() as port:
        yield port


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Forwarding]:
    """A tunnel, for everybody, to whatever a test serves at the port."""
    folder, public = tmp_path_factory.mktemp("many"), ("--public",)
    with lasting(forwarding(folder, f"127.0.0.1:{port}", provide=public, consume=public)) as opened:
        yield opened


@asynccontextmanager
async def echoing(port: int) -> AsyncIterator[None]:
    """Serve the port: each connection gets back what it sends."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=1024)
        async with listener:
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            yield
            nursery.cancel_scope.cancel()


def descriptors(process: Running) -> int:
    """Count what a process has open."""
    return len(os.listdir(f"/proc/{process.process.pid}/fd"))


def is_released(process: Running, count: int) -> bool:
    """Return whether a process has no more open than this."""
    return descriptors(process) <= count


def memory(process: Running) -> int:
    """Give the bytes that a process has in memory."""
    with open(f"/proc/{process.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


async def bounce(tunnel: Forwarding, word: bytes) -> None:
    """Open a tunnel, have a word echoed, and close it."""
    async with await tunnel.connect() as client:
        await send(client, word)
        await expect(client, word)


async def test_two_thousand_tunnels_one_after_the_other(tunnel: Forwarding, port: int) -> None:
    async with echoing(port):
        await bounce(tunnel, b"first")
        before = {end: descriptors(end) for end in (tunnel.provider, tunnel.consumer)}
        with trio.fail_after(SECONDS):
            for number in range(2000):
                await bounce(tunnel, str(number).encode())
        for end, count in before.items():
            assert await until(partial(is_released, end, count), RELEASE_SECONDS)


async def test_three_hundred_tunnels_at_once(tunnel: Forwarding, port: int) -> None:
    async with AsyncExitStack() as clients:
        opened: list[trio.SocketStream] = []

        async def open_one(number: int) -> None:
            client = await clients.enter_async_context(await tunnel.connect())
            word = f"{number:03}".encode()
            await client.send_all(word)
            assert await receive_exactly(client, 3) == word
            opened.append(client)

        await clients.enter_async_context(echoing(port))
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(open_one, number)
            for client in opened:
                await send(client, b"still open")
                await expect(client, b"still open")


async def test_fifty_tunnels_carry_bulk_both_ways_at_once(tunnel: Forwarding, port: int) -> None:
    up, down = noise(1, 4 * MIB), noise(2, 4 * MIB)
    served = []

    async def exchange(stream: trio.SocketStream, outgoing: bytes, incoming: bytes) -> None:
        async with stream, trio.open_nursery() as both:
            both.start_soon(send, stream, outgoing)
            both.start_soon(expect, stream, incoming)

    async def serve(stream: trio.SocketStream) -> None:
        await exchange(stream, down, up)
        served.append(stream)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, serve, port)
            async with trio.open_nursery() as clients:
                for _ in range(50):
                    clients.start_soon(exchange, await tunnel.connect(), up, down)
            assert await until(lambda: len(served) == 50, RELEASE_SECONDS)
            nursery.cancel_scope.cancel()


async def test_a_thousand_idle_tunnels_cost_little(
    tmp_path: Path, port: int, record_property: Callable[[str, object], None]
) -> None:
    async with (
        forwarding(tmp_path, f"127.0.0.1:{port}") as tunnel,
        echoing(port),
        AsyncExitStack() as clients,
    ):
        ends = {"provider": tunnel.provider, "consumer": tunnel.consumer}

        async def open_idle() -> trio.SocketStream:
            client = await clients.enter_async_context(await tunnel.connect())
            await client.send_all(b"hello")
            assert await receive_exactly(client, 5) == b"hello"
            return client

        await open_idle()
        before = {name: memory(end) for name, end in ends.items()}
        with trio.fail_after(SECONDS):
            idle = [await open_idle() for _ in range(IDLE_TUNNELS)]
        for name, end in ends.items():
            resident, grown = memory(end), memory(end) - before[name]
            record_property(f"{name}_rss_bytes", resident)
            print(
                f"{name}: {resident / MIB:.1f} MiB resident, {grown / IDLE_TUNNELS / 1024:.1f} KiB a tunnel"
            )
            assert grown <= IDLE_MEMORY
        await idle[0].send_all(b"awake")
        assert await receive_exactly(idle[0], 5) == b"awake"


async def greet(host: Host, tunnel: Forwarding) -> None:
    """Connect to the provider, use the connection and close it."""
    peer_id = tunnel.address.rpartition("/")[2]
    connection = await host.dial(peer_id, [tunnel.address], SECONDS)
    try:
        near, far = socket.socketpair()
        near.setblocking(False)
        stream = await connection.open_tunnel(TUNNEL)
        async with (
            trio.open_nursery() as nursery,
            trio.SocketStream(trio.socket.from_stdlib_socket(far)) as client,
        ):
            nursery.start_soon(stream.splice, near)
            await send(client, b"hello")
            await expect(client, b"hello")
    finally:
        await connection.close()


@pytest.mark.parametrize(("total", "at_once"), [(2000, 1), (300, 300)])
async def test_every_peer_that_connects_is_served(
    tunnel: Forwarding, port: int, total: int, at_once: int
) -> None:
    turns = trio.Semaphore(at_once)
    async with echoing(port), open_host(Identity.ephemeral(), ()) as host:

        async def take_turn() -> None:
            async with turns:
                await greet(host, tunnel)

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(total):
                    nursery.start_soon(take_turn)
        await bounce(tunnel, b"the consumer's own connection is untouched")
