"""A provider that comes late, goes away or comes back elsewhere; a consumer that waits for it."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.clock import soon
from tests.interop.exchanges import read_until_reset
from tests.interop.peers import Running, running
from tests.interop.tunnels import tcp_address
from tests.node.lan import Machine, open_machine
from tests.node.pair import echo
from tests.tools import PT
from tests.traffic.processes import NAME, consumer, need_all, nobody, provider, until
from tests.traffic.streams import receive_exactly

BACK_SECONDS = 3.0  # after which a provider that has returned serves again
WAIT = 2.0  # seconds that new connections wait, where a test says so
PATIENCE = 30.0  # seconds for what must happen, on a busy machine


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """A server that sends back what comes."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def connect(consumer: Running) -> trio.SocketStream:
    """Open a client's connection to a consumer's port."""
    local = (await consumer.event("listening"))["local"]
    return await trio.open_tcp_stream("127.0.0.1", int(local.rpartition(":")[2]))


async def bounce(client: trio.SocketStream) -> None:
    """Have a word echoed."""
    await client.send_all(b"hello")
    assert await receive_exactly(client, 5) == b"hello"


async def test_a_provider_that_returns_to_its_address_serves_at_once(tmp_path: Path, target: str) -> None:
    async with provider(tmp_path)(target) as first:
        address = tcp_address(await first.event("ready"))
        async with consumer(tmp_path)(address) as near_client:
            client = await connect(near_client)
            await bounce(client)
            first.process.kill()
            with trio.fail_after(PATIENCE):
                await read_until_reset(client)
            await near_client.event("path", path="none")
            waiting = await connect(near_client)
            place = address.partition("/p2p/")[0]
            async with provider(tmp_path, "--p2p-listen", place)(target) as second:
                assert tcp_address(await second.event("ready")) == address
                async with soon(BACK_SECONDS):
                    await bounce(waiting)


async def test_a_consumer_may_start_before_the_provider(tmp_path: Path, target: str) -> None:
    async with provider(tmp_path)(target) as first:
        address = tcp_address(await first.event("ready"))
    async with consumer(tmp_path, "--wait", "60")(address) as near_client:
        waiting = await connect(near_client)
        async with provider(tmp_path, "--p2p-listen", address.partition("/p2p/")[0])(target) as second:
            await second.event("ready")
            async with soon(BACK_SECONDS):
                await bounce(waiting)


async def test_a_connection_waits_for_the_provider_and_is_then_reset(tmp_path: Path) -> None:
    async with consumer(tmp_path, "--wait", f"{WAIT:g}")(nobody()) as near_client:
        await near_client.event("listening")
        start = trio.current_time()
        client = await connect(near_client)
        with trio.fail_after(PATIENCE):
            await read_until_reset(client)
        assert WAIT - 0.1 <= trio.current_time() - start
        error = await near_client.event("error")
        assert error["code"] == 3 and f"within {WAIT:g} s" in error["message"]
        with trio.fail_after(PATIENCE):
            await read_until_reset(await connect(near_client))  # the port stays open


def lost(consumer: Running, times: int) -> bool:
    """Return whether a consumer has lost its provider so many times."""
    return len(consumer.past("path", path="none")) == times


def on_lan(machine: Machine, home: Path, *arguments: str) -> AbstractAsyncContextManager[Running]:
    """Run `pt` on a machine where multicast reaches nobody else."""
    listen = ("--p2p-listen", "/ip4/127.0.0.1/tcp/0")
    command = [
        *PT,
        "--json",
        *listen,
        *arguments,
        "--id",
        NAME,
        "--grace",
        "0",
    ]
    return running(machine.command(*command), home)


@asynccontextmanager
async def echoing(path: Path) -> AsyncIterator[None]:
    """Serve a unix socket, which is reached from every network."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(os.fspath(path))
    sock.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(sock)])
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def networks() -> None:
    """Networks of our own."""
    need_all("ip", "nsenter", "unshare")


@pytest.mark.usefixtures("networks")
async def test_a_provider_is_found_by_name_wherever_it_starts_and_restarts(tmp_path: Path) -> None:
    server, local = tmp_path / "server", tmp_path / "local"
    provide = (tmp_path / "provider", "tcp", "--target", f"unix:{server}")
    consume = (tmp_path / "consumer", "bind", "--listen", f"unix:{local}", "--wait", "60")
    async with echoing(server), open_machine() as machine, on_lan(machine, *consume) as near_client:
        await near_client.event("listening")
        places = set()
        for turn in (1, 2):
            waiting = await trio.open_unix_socket(os.fspath(local))
            async with on_lan(machine, *provide) as near_server:
                places.add(tcp_address(await near_server.event("ready")))
                async with soon(BACK_SECONDS):
                    await bounce(waiting)
                near_server.process.kill()
                assert await until(partial(lost, near_client, turn), PATIENCE)
        assert len(places) == 2, "the second provider was to be somewhere else"
