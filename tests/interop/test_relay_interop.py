"""Go peers with each other, and Rust peers with each other, through a circuit of `pt relay`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peertunnel.protocols.peerid import ed25519_peer_id
from tests.interop.exchanges import (
    Exchange,
    bulk_both_ways,
    check,
    client_aborts,
    client_half_closes,
    one_after_the_other,
    provider_dies,
    read_until_reset,
    server_aborts,
    server_half_closes,
)
from tests.interop.peers import pt
from tests.interop.tunnels import Tunnel, foreign_consumer, foreign_provider, tunnel

SEED = "behind a relay"
LIMIT = 128 * 1024  # bytes that strangers may send each way
SECONDS = 40
EXCHANGES: tuple[Exchange, ...] = (
    bulk_both_ways,
    client_half_closes,
    server_half_closes,
    client_aborts,
    server_aborts,
    provider_dies,
    one_after_the_other,
)


@dataclass(frozen=True, slots=True)
class Make:
    """A foreign peer: its program, what it is started with, and the seed of the key that SEED stands for."""

    binary: Path
    options: tuple[str, ...]
    seed: bytes

    @property
    def peer_id(self) -> str:
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        return ed25519_peer_id(key.public_key().public_bytes_raw())


@pytest.fixture(params=["go", "rust"])
def make(request: pytest.FixtureRequest, gopeer: Path, rspeer: Path) -> Make:
    """Each of the two."""
    loopback = ("--listen", "/ip4/127.0.0.1/tcp/0")
    if request.param == "go":
        return Make(gopeer, (*loopback, "--tcp-only"), sha256(SEED.encode()).digest())
    return Make(rspeer, (*loopback, "--no-dcutr"), SEED.encode().ljust(32, b"\0"))


@asynccontextmanager
async def relayed(make: Make, home: Path, *options: str) -> AsyncIterator[Tunnel]:
    """Join two peers of one make through a relay of ours; nobody else names an address."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(pt(home, "relay", *options))
        address = (await relay.event("relay"))["via"]
        provide = foreign_provider(make.binary, *make.options, "--seed", SEED, "--relay", address)
        consume = foreign_consumer(make.binary, *make.options)
        circuit = f"{address}/p2p-circuit/p2p/{make.peer_id}"
        yield await stack.enter_async_context(tunnel(provide, lambda direct: consume(circuit)))


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
async def test_without_limits(make: Make, tmp_path: Path, exchange: Exchange) -> None:
    async with relayed(make, tmp_path, "--unlimited-for", make.peer_id) as joined:
        await check(exchange, joined)
        assert joined.consumer.past("connected", path="relayed", peer_id=make.peer_id)


async def test_strangers_are_cut_off_and_not_told_that_this_was_the_end(make: Make, tmp_path: Path) -> None:
    async with relayed(make, tmp_path) as joined:
        client, server = await joined.open()
        with trio.fail_after(SECONDS):
            await client.send_all(bytes(LIMIT // 2))
            received = 0
            while received < LIMIT // 2:
                received += len(await server.receive_some())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_until_reset, client)
                nursery.start_soon(read_until_reset, server)
                nursery.start_soon(send_too_much, client)


async def send_too_much(client: trio.SocketStream) -> None:
    try:
        await client.send_all(bytes(LIMIT))
    except trio.BrokenResourceError:
        pass  # cut off before all has left
