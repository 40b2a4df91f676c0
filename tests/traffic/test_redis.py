"""Redis through tunnels to its port, from a port and from a unix socket, under redis-benchmark."""

import csv
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.tools import need
from tests.traffic.processes import consumer, forwarding, held_port, lasting, need_all, run, server


@dataclass(frozen=True, slots=True)
class Redis:
    """The far end of a tunnel, and the options that lead a client there."""

    where: tuple[str, ...]

    async def cli(self, *words: str, stdin: bytes = b"") -> bytes:
        """Run one command; `-x` among the words takes the last argument from stdin."""
        return (await run([need("redis-cli"), *self.where, *words], stdin=stdin)).removesuffix(b"\n")

    async def benchmark(self, *arguments: str) -> dict[str, float]:
        """Give the requests a second of each test."""
        printed = await run([need("redis-benchmark"), *self.where, "--csv", *arguments])
        return {row["test"]: float(row["rps"]) for row in csv.DictReader(printed.decode().splitlines())}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Redis, Redis]]:
    """Run a server and two ways to it."""
    path = folder / "local"
    with held_port() as port:
        command = [need("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        async with (
            server([*command, "--save", ""], lambda: _answers(port)),
            forwarding(folder, f"127.0.0.1:{port}") as tunnel,
            consumer(folder / "unix", "--listen", f"unix:{path}")(tunnel.address) as second,
        ):
            await second.event("listening")
            yield Redis(("-h", "localhost", "-p", str(tunnel.port))), Redis(("-s", str(path)))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"PING\r\n")
        return client.recv(5) == b"+PONG"
    return False


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Redis, Redis]]:
    """A server with one tunnel from a port and one from a unix socket."""
    need_all("redis-server", "redis-cli", "redis-benchmark")
    with lasting(opened(tmp_path_factory.mktemp("redis"))) as both:
        yield both


@pytest.fixture(params=["port", "unix"])
def redis(request: pytest.FixtureRequest, ways: tuple[Redis, Redis]) -> Redis:
    """One of the ways."""
    return ways[request.param == "unix"]


async def test_the_benchmark_is_answered_in_full(redis: Redis) -> None:
    await redis.cli("config", "resetstat")
    measured = await redis.benchmark("-n", "20000", "-c", "50", "-P", "16", "-t", "set,get,lpush,lrange_100")
    assert len(measured) == 5 and all(measured.values())
    counted = (await redis.cli("info", "commandstats")).decode()
    for name, calls in (("set", 20_000), ("get", 20_000), ("lpush", 40_000), ("lrange", 20_000)):
        assert f"cmdstat_{name}:calls={calls}," in counted


async def test_the_benchmark_with_large_values(redis: Redis) -> None:
    await redis.benchmark("-n", "200", "-c", "8", "-d", str(1 << 20), "-t", "set,get")
    assert await redis.cli("strlen", "key:__rand_int__") == str(1 << 20).encode()


async def test_a_value_comes_back_as_it_went(redis: Redis) -> None:
    value = Random(3).randbytes(16 << 20)
    assert await redis.cli("-x", "set", "value", stdin=value) == b"OK"
    assert await redis.cli("get", "value") == value


async def test_a_connection_for_every_request(redis: Redis) -> None:
    before = int((await redis.cli("info", "stats")).split(b"total_connections_received:")[1].split()[0])
    await redis.benchmark("-n", "500", "-c", "20", "-k", "0", "-t", "ping_mbulk")
    after = int((await redis.cli("info", "stats")).split(b"total_connections_received:")[1].split()[0])
    assert after - before > 500
