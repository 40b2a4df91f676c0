"""Tunnels between `pt` and the Go and the Rust peer over QUIC, each dialling the other."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from random import Random

import pytest
import trio

from tests.clock import soon
from tests.interop.exchanges import (
    CHUNK,
    EXCHANGES,
    MIB,
    Exchange,
    check,
    consumer_dies,
    provider_dies,
    read_until_reset,
)
from tests.interop.tunnels import (
    OPEN_SECONDS,
    Tunnel,
    foreign_consumer,
    foreign_provider,
    pt_consumer,
    pt_provider,
    tunnel,
)
from tests.nat.together import Case, Ends, meanwhile, together
from tests.tools import need_quic

QUIC = ("--transport", "quic")
STALL = 8.0  # seconds without a read
FLOOD = 64 * MIB
IDLE = 60.0  # seconds without a byte: longer than any of the three waits for a silent peer
ANOTHER_PEER = "12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    """Without the engine there is nothing to test."""
    need_quic()


@pytest.fixture(params=("gopeer", "rspeer"))
def foreign(request: pytest.FixtureRequest) -> Path:
    """The other make of peer."""
    binary: Path = request.getfixturevalue(request.param)
    return binary


@asynccontextmanager
async def between(foreign: Path, *, from_pt: bool, home: Path) -> AsyncIterator[Tunnel]:
    """Run a tunnel with the other peer as its provider or as its consumer."""
    if from_pt:
        ends = foreign_provider(foreign, *QUIC), pt_consumer(home, *QUIC)
    else:
        ends = pt_provider(home), foreign_consumer(foreign, *QUIC)
    async with tunnel(*ends, "/quic-v1/") as joined:
        yield joined


@pytest.fixture(params=("from_pt", "to_pt"))
async def joined(request: pytest.FixtureRequest, foreign: Path, tmp_path: Path) -> AsyncIterator[Tunnel]:
    """A tunnel with the other peer at either end."""
    async with between(foreign, from_pt=request.param == "from_pt", home=tmp_path) as joined:
        yield joined


async def client_stalls(tunnel: Tunnel) -> None:
    """A reader that stops for 8 s gets everything all the same, and holds up no other tunnel."""
    client, server = await tunnel.open()
    noise, sent, received = Random(1), sha256(), sha256()
    length = 0

    async def flood() -> None:
        for _ in range(FLOOD // CHUNK):
            chunk = noise.randbytes(CHUNK)
            sent.update(chunk)
            await server.send_all(chunk)
        await server.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with trio.move_on_after(STALL):
            other, there = await tunnel.open()
            while True:
                await other.send_all(b"x")
                async with soon(2):
                    assert await there.receive_some(1) == b"x"
                await trio.sleep(0.1)
        async for chunk in client:
            received.update(chunk)
            length += len(chunk)
    assert (length, received.hexdigest()) == (FLOOD, sent.hexdigest())


async def nobody_speaks_for_a_minute(tunnel: Tunnel) -> None:
    """A tunnel that is silent for longer than its peers' patience is still there."""
    client, server = await tunnel.open()
    await trio.sleep(IDLE)
    with trio.fail_after(20):
        await client.send_all(b"still")
        assert await server.receive_some(5) == b"still"


WAITS = (nobody_speaks_for_a_minute, provider_dies, consumer_dies)  # the dead don't say that they are
Homes = pytest.TempPathFactory


def side_by_side(exchanges: Sequence[Exchange], binaries: Sequence[Path], homes: Homes) -> dict[str, Case]:
    """Give the cases of exchanges that wait: each with each peer at either end."""

    async def run(exchange: Exchange, foreign: Path, from_pt: bool) -> None:
        async with between(foreign, from_pt=from_pt, home=homes.mktemp("home")) as joined:
            await check(exchange, joined, OPEN_SECONDS + IDLE + 20)

    return {
        f"{exchange.__name__}, {foreign.name}, {'from' if from_pt else 'to'} pt": partial(
            run, exchange, foreign, from_pt
        )
        for exchange, foreign, from_pt in product(exchanges, binaries, (True, False))
    }


@pytest.fixture(scope="module", autouse=True)
def waits(engine: None, gopeer: Path, rspeer: Path, tmp_path_factory: Homes) -> Iterator[Ends]:
    """What takes a peer's patience or longer is waited for while the other tests go on."""
    with meanwhile(side_by_side(WAITS, [gopeer, rspeer], tmp_path_factory)) as ends:
        yield ends


@pytest.mark.parametrize(
    "exchange", [one for one in EXCHANGES if one not in WAITS], ids=lambda one: one.__name__
)
async def test_exchange(joined: Tunnel, exchange: Exchange) -> None:
    await check(exchange, joined)


async def test_client_stalls(gopeer: Path, rspeer: Path, tmp_path_factory: Homes) -> None:
    cases = side_by_side([client_stalls], [gopeer, rspeer], tmp_path_factory)
    await together(cases, at_once=len(cases))


async def test_pt_refuses_another_peer_than_it_dialled(foreign: Path, tmp_path: Path) -> None:
    consume = pt_consumer(tmp_path, *QUIC, "--wait", "2")
    async with tunnel(
        foreign_provider(foreign, *QUIC),
        lambda address: consume(f"{address.partition('/p2p/')[0]}/p2p/{ANOTHER_PEER}"),
        "/quic-v1/",
    ) as joined:
        with trio.fail_after(20):
            await read_until_reset(await joined.connect())
        assert joined.provider.past("tunnel-opened") == []


def test_waits(waits: Ends) -> None:
    """The last test, for they have been waiting since the first."""
    for end in waits.values():
        end.result()
