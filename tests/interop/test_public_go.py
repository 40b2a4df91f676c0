"""Public services and the Go PeerTunnel's wire: its topic in the DHT, and its protocol, both ways."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peertunnel.node import GO_TUNNEL
from peertunnel.protocols.topic import cid, go_peertunnel_topic
from tests.interop.peers import Running, pt, running
from tests.interop.tunnels import tcp_address
from tests.node.pair import echo, target

ID = "ssh.tao.gossip"
CID = "bafkreiglr4prrso7b67mcm6km2umfbbl7he4xzubzzrhgisdycg3m2ymoq"
TOPIC = go_peertunnel_topic(ID).decode()
PREFIX = "/private"
PATIENCE = 40  # seconds for what takes three on an idle machine


@pytest.fixture
async def entry(gopeer: Path) -> AsyncIterator[str]:
    """The address of a DHT node that is nobody else's."""
    command = [str(gopeer), "relay", "--tcp-only", "--prefix", PREFIX, "--listen", "/ip4/127.0.0.1/tcp/0"]
    async with running(command) as process:
        yield tcp_address(await process.event("ready"))


def go(gopeer: Path, entry: str, *arguments: str) -> list[str]:
    """Give a command of the Go peer as the Go PeerTunnel behaves: its topic, its protocol."""
    spoken = ["--protocol", GO_TUNNEL, "--id", TOPIC]
    return [str(gopeer), *arguments, "--tcp-only", "--prefix", PREFIX, "--bootstrap", entry, *spoken]


def ours(home: Path, entry: str, *arguments: str) -> tuple[Path, tuple[str, ...]]:
    """Give a home and the arguments of `pt` for the same service."""
    shared = (
        "--public",
        "--id",
        ID,
        "--dht",
        "--dht-prefix",
        PREFIX,
        "--bootstrap",
        entry,
        "--wait",
        str(PATIENCE),
    )
    return home, (*arguments, *shared)


async def bounce(consumer: Running) -> None:
    """Send something through the tunnel and see it come back."""
    host, _, port = (await consumer.event("listening"))["local"].rpartition(":")
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(host, int(port)) as client:
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"


@asynccontextmanager
async def started(home: Path, arguments: tuple[str, ...]) -> AsyncIterator[Running]:
    """Run `pt`."""
    async with pt(home, *arguments) as process:
        yield process


def test_the_topic_is_the_go_peertunnels() -> None:
    assert cid(TOPIC.encode()) == CID


async def test_a_go_peertunnel_reaches_our_public_service(gopeer: Path, entry: str, tmp_path: Path) -> None:
    async with (
        target(echo) as port,
        started(*ours(tmp_path, entry, "tcp", "--port", str(port))) as provider,
    ):
        await provider.event("ready")
        with trio.fail_after(PATIENCE):
            while True:  # it gives up at once when the record is not there yet
                async with running(go(gopeer, entry, "tunnel-dial")) as consumer:
                    while consumer.process.poll() is None and not consumer.past("listening"):  # noqa: ASYNC110
                        await trio.sleep(0.02)
                    if consumer.past("listening"):
                        await bounce(consumer)
                        return


async def test_we_reach_a_go_peertunnel(gopeer: Path, entry: str, tmp_path: Path) -> None:
    async with (
        target(echo) as port,
        running(go(gopeer, entry, "tunnel-listen", "--target", f"127.0.0.1:{port}")) as provider,
    ):
        await provider.event("ready")
        async with started(*ours(tmp_path, entry, "bind", "--port", "0")) as consumer:
            await bounce(consumer)


async def test_two_of_ours_meet_in_public_too(entry: str, tmp_path: Path) -> None:
    async with (
        target(echo) as port,
        started(*ours(tmp_path / "a", entry, "tcp", "--port", str(port))),
        started(*ours(tmp_path / "b", entry, "bind", "--port", "0")) as consumer,
    ):
        await bounce(consumer)
