"""200 circuits of one provider through `pt relay`, each program a process of its own, while one of them floods."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import trio

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL
from peertunnel.transport.connection import MuxedConnection
from tests.cli.commands import POLL, SECONDS, Started
from tests.cli.servers import connect, echo_server
from tests.cli.test_relay import page, via
from tests.clock import Clock
from tests.node.pair import PATIENCE

CIRCUITS = 200
TURNS = 5
MOST = 1.0  # seconds for 95 of 100 echoes on a busy machine; behind a flood that takes no turns they take for ever
FLOODED = 32 * 1024 * 1024  # bytes that have passed before anything is measured
ID = "an id that everybody knows"

pytestmark = pytest.mark.alone


@contextmanager
def flood(port: int) -> Iterator[None]:
    """Write to a port, and read what comes back, as fast as it goes."""
    with connect(port) as client:

        def write() -> None:
            with suppress(OSError):
                while True:
                    client.sendall(bytes(1 << 20))

        def read() -> None:
            with suppress(OSError):
                while client.recv(1 << 20):
                    pass

        threads = [threading.Thread(target=work, daemon=True) for work in (write, read)]
        for thread in threads:
            thread.start()
        yield
        client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(SECONDS)


def carried(relay: Started) -> int:
    """Give how many bytes the relay has carried."""
    (line,) = (line for line in page(relay).splitlines() if line.startswith("peertunnel_circuit_bytes_total"))
    return int(float(line.split()[1]))


def until_it_floods(relay: Started) -> None:
    """Wait until so much has passed from now on."""
    wanted, deadline = carried(relay) + FLOODED, time.monotonic() + SECONDS
    while carried(relay) < wanted:
        assert time.monotonic() < deadline
        time.sleep(POLL)


async def echo(connection: MuxedConnection, clock: Clock, took: list[float]) -> None:
    """Have the target send a word back so many times over one tunnel, and note how long each took."""
    stream = await connection.open_tunnel(TUNNEL)
    for turn in range(TURNS):
        began = clock.now
        word = turn.to_bytes(8, "big")
        await stream.write(word)
        answer = b""
        while len(answer) < len(word):
            answer += await stream.read()
        assert answer == word
        took.append(clock.now - began)
    stream.abort()


async def until_unlimited(host: Host, address: str) -> None:
    """Wait until the relay has read that the provider is a friend."""
    with trio.fail_after(SECONDS):
        while (connection := await call(host, address)).way.limit is not None:
            await connection.close()


async def call(host: Host, address: str) -> MuxedConnection:
    return await host.dial(address.rpartition("/")[2], [address], PATIENCE)


async def echoes(
    relay: Started, address: str, flooder: Callable[[], AbstractContextManager[None]]
) -> list[float]:
    """Open all circuits from one place, have each echo while the flood goes on; return seconds, the shortest first."""
    took, clock = list[float](), Clock()
    async with open_host(Identity.ephemeral(), ()) as host:
        await until_unlimited(host, address)
        connections = [await call(host, address) for _ in range(CIRCUITS)]
        with flooder():
            await trio.to_thread.run_sync(until_it_floods, relay)
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as timing:
                    timing.start_soon(clock.run)
                    async with trio.open_nursery() as nursery:
                        for connection in connections:
                            nursery.start_soon(echo, connection, clock, took)
                    timing.cancel_scope.cancel()
            await trio.to_thread.run_sync(until_it_floods, relay)  # as it has done all the while
    return sorted(took)


def test_200_circuits_answer_while_one_floods(tmp_path: Path) -> None:
    friends = tmp_path / "friends"
    friends.touch()
    provide = ("tcp", "--public", "--id", ID, "--port")
    with (
        echo_server() as target,
        Started(tmp_path / "r", "relay", "--unlimited-peers", str(friends), "--metrics", "0") as relay,
        Started(tmp_path / "a", "--relay-only", "--via", via(relay), "--json", *provide, str(target)) as ours,
    ):
        address = ours.until(r"/ip4/127[^ \"]*/p2p-circuit/p2p/\w+")[0]
        friends.write_text(address.rpartition("/")[2])
        consume = ("--relay-only", "bind", "--port", "0", "--peer", address)

        @contextmanager
        def flooder() -> Iterator[None]:
            with Started(tmp_path / "b", *consume) as running, flood(running.port()):
                yield

        took = trio.run(echoes, relay, address, flooder)
    assert len(took) == CIRCUITS * TURNS
    assert took[len(took) * 95 // 100] < MOST, took[:: len(took) // 20]
