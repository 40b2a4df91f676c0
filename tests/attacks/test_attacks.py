"""Attacks on real `pt` processes by real ones that don't know the id: nothing gets out, and the honest are served."""

import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.service import Service
from tests.interop.peers import Running, pt, running
from tests.nat.together import Ends, meanwhile
from tests.node.pair import target

ID = "attacked-9f8c3f3a1d5be07c42ad"
SECRET = b"what nobody else may read"
PATIENCE = 40.0  # seconds for what takes less than two on an idle machine
SOON = 10.0  # seconds for an honest peer to get in while others attack
GROWTH = 80 << 20  # bytes that a process may grow by under attack: streams of 300 connections, at most


@dataclass
class Victim:
    """A running provider, how often its target was dialled, and its memory at the start."""

    process: Running
    addresses: list[str]
    dialled: list[None] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens on IPv4."""
        return next(address for address in self.addresses if address.startswith("/ip4/"))

    @property
    def other_address(self) -> str:
        """Where it listens on IPv6: whoever comes there comes from elsewhere."""
        return next(address for address in self.addresses if address.startswith("/ip6/"))


def resident(process: Running) -> int:
    """Return the resident memory of a process in bytes."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024


@asynccontextmanager
async def victim(home: Path, *options: str) -> AsyncIterator[Victim]:
    """Run a provider of a server that gives its secret to whoever connects; see at the end that it is well."""
    dialled: list[None] = []

    async def give(stream: trio.SocketStream) -> None:
        dialled.append(None)
        await stream.receive_some()
        await stream.send_all(SECRET)

    listen = ("--p2p-listen", "/ip4/127.0.0.1/tcp/0", "--p2p-listen", "/ip6/::1/tcp/0", "-vv")
    async with (
        target(give) as port,
        pt(home / "victim", "tcp", "--port", str(port), "--id", ID, *listen, *options) as process,
    ):
        found = Victim(process, (await process.event("ready"))["addresses"], dialled)
        before = resident(process)
        yield found
        dialled.clear()
        async with consumer(home, found.other_address) as honest:
            assert await fetch(honest, PATIENCE) == SECRET
        assert resident(process) - before < GROWTH
        assert "Traceback" not in str(process)


def consumer(home: Path, *addresses: str, name: str = "honest") -> AbstractAsyncContextManager[Running]:
    """Run a consumer that knows the id."""
    peers = [word for address in addresses for word in ("--peer", address)]
    return pt(home / name, "bind", "--port", "0", "--id", ID, "--wait", str(PATIENCE), *peers)


async def fetch(process: Running, within: float) -> bytes:
    """Fetch the secret through a consumer."""
    host, _, port = (await process.event("listening"))["local"].rpartition(":")
    with trio.fail_after(within):
        async with await trio.open_tcp_stream(host, int(port)) as client:
            await client.send_all(b"please")
            return await client.receive_some()


def attacker(*arguments: str) -> AbstractAsyncContextManager[Running]:
    """Run an attacker."""
    return running([sys.executable, "-m", "tests.attacks.attacker", *arguments])


async def replay(tmp_path: Path) -> None:
    """It listens where the provider is expected, keeps what a consumer says, and says it to the provider."""
    async with victim(tmp_path) as there, attacker("squat") as squatter:
        place = (await squatter.event("ready"))["addresses"][0]
        async with consumer(tmp_path, place, name="deceived"):
            hello = (await squatter.event("hello"))["hello"]
            async with attacker("replay", there.address, hello, hello) as stranger:
                assert (await stranger.event("result"))["bytes"] == 0
        assert not there.dialled


@pytest.fixture(scope="module", autouse=True)
def waits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """How long a stranger is given, 10 s, is waited for while the other tests go on."""
    with meanwhile({"replay": partial(replay, tmp_path_factory.mktemp("replay"))}) as ends:
        yield ends


@pytest.mark.parametrize("mode", ["tunnel", "guess"])
async def test_without_the_id_there_is_nothing_to_get(mode: str, tmp_path: Path) -> None:
    async with victim(tmp_path) as there, attacker(mode, there.address) as stranger:
        assert (await stranger.event("result"))["bytes"] == 0
        assert not stranger.past("proven") and not there.dialled


async def test_a_go_peer_that_opens_plain_tunnels_gets_nothing(gopeer: Path, tmp_path: Path) -> None:
    async with (
        victim(tmp_path) as there,
        running([str(gopeer), "tunnel-dial", "--tcp-only", "--peer", there.address]) as stranger,
    ):
        # A reset may come even before it is seen that the connection stands; an end without a byte is as good.
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            assert await fetch(stranger, PATIENCE) == b""
        assert stranger.process.poll() is None
        assert not there.dialled


async def test_a_man_in_the_middle_gets_nothing(tmp_path: Path) -> None:
    async with victim(tmp_path) as there, attacker("middle", there.address) as between:
        place = (await between.event("ready"))["addresses"][0]
        async with consumer(tmp_path, place, name="deceived"):
            assert (await between.event("result"))["bytes"] == 0
        assert not there.dialled


async def test_squatters_on_the_topic_do_not_keep_the_provider_from_being_found(tmp_path: Path) -> None:
    """They are where the rendezvous point says that providers are: they register what the consumer looks for."""
    relay = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-dht")
    async with pt(tmp_path / "relay", *relay) as point:
        via = ("--rendezvous", (await point.event("relay"))["via"])
        wrong = ("--id", ID, *via)
        async with victim(tmp_path, *via) as there:
            # Who knows the topic but not the id: a provider of the same topic that lets in nobody who proves it.
            nobody = ("--allow", there.address.rpartition("/p2p/")[2])
            async with (
                pt(tmp_path / "squatter 1", "tcp", "--port", "1", *wrong, *nobody) as first,
                pt(tmp_path / "squatter 2", "tcp", "--port", "1", *wrong, *nobody) as second,
            ):
                for squatter in (first, second):
                    await squatter.event("ready")
                async with pt(tmp_path / "honest", "bind", "--port", "0", *wrong) as honest:
                    assert await fetch(honest, SOON) == SECRET


@pytest.mark.parametrize("way", ["--rendezvous", "--bootstrap"])
async def test_hostile_records_do_not_hide_the_provider(way: str, tmp_path: Path) -> None:
    """More than a node keeps, on the topic, from as many peers that are not there, before the provider announces itself."""
    relay = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--dht", "--dht-prefix", "/private")
    async with pt(tmp_path / "relay", *relay) as point:
        via = (await point.event("relay"))["via"]
        topics = Service.from_id(ID).topics_to_search(time.time())
        async with attacker("records", via, *(topic.hex() for topic in topics)) as stranger:
            taken = await stranger.event("result", 2 * PATIENCE)
            assert min(taken["registered"], taken["provided"]) >= 300
        place = (way, via, *(("--dht", "--dht-prefix", "/private") if way == "--bootstrap" else ()))
        async with victim(tmp_path, *place):
            meet = ("bind", "--port", "0", "--id", ID, "--wait", str(PATIENCE), *place)
            async with pt(tmp_path / "late", *meet) as honest:
                assert await fetch(honest, SOON) == SECRET


async def test_ten_thousand_hostile_records_do_not_hide_the_provider(tmp_path: Path) -> None:
    """The only DHT node that a consumer knows names thousands of providers, before and beside the node with the record."""
    dht = ("--dht", "--dht-prefix", "/private")
    relay = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", *dht)
    async with pt(tmp_path / "relay", *relay) as point:
        via = (await point.event("relay"))["via"]
        async with victim(tmp_path, *dht, "--bootstrap", via), attacker("node", via) as liar:
            lies = ("--bootstrap", (await liar.event("ready"))["addresses"][0])
            meet = ("bind", "--port", "0", "--id", ID, "--wait", str(PATIENCE), *dht, *lies)
            async with pt(tmp_path / "late", *meet) as honest:
                assert await fetch(honest, SOON) == SECRET
                assert resident(honest) < 2 * GROWTH
            assert sum(lie["providers"] for lie in liar.past("lied")) > 10_000


async def test_a_flood_of_proofs_keeps_nobody_else_out(tmp_path: Path) -> None:
    async with victim(tmp_path) as there, consumer(tmp_path, there.address, name="before") as before:
        assert await fetch(before, PATIENCE) == SECRET
        async with attacker("flood", there.address) as stranger:
            await stranger.event("ready")
            assert (await there.process.event("proofs-failed"))["place"] == "127.0.0.1"
            async with consumer(tmp_path, there.other_address, name="newcomer") as newcomer:
                assert await fetch(newcomer, SOON) == SECRET
            assert await fetch(before, SOON) == SECRET


async def test_strangers_that_say_nothing_keep_nobody_else_out(tmp_path: Path) -> None:
    async with victim(tmp_path) as there, attacker("silence", there.address) as stranger:
        assert (await stranger.event("ready"))["held"] >= 100
        async with consumer(tmp_path, there.other_address, name="newcomer") as newcomer:
            assert await fetch(newcomer, SOON) == SECRET


async def test_garbage_closes_its_own_connection_and_nothing_else(tmp_path: Path) -> None:
    protocols = (AUTH, "/portkey/tunnel/1.0.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/nobody/speaks/this")
    async with victim(tmp_path) as there, attacker("garbage", there.address, *protocols) as stranger:
        assert (await stranger.event("result"))["bytes"] == 0
        assert not there.dialled


async def test_garbage_leaves_a_relay_well(tmp_path: Path) -> None:
    relay = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--dht", "--dht-prefix", "/private", "-vv")
    async with pt(tmp_path / "relay", *relay) as point:
        via = (await point.event("relay"))["via"]
        async with attacker("garbage", via, "/rendezvous/1.0.0", "/private/kad/1.0.0") as stranger:
            assert (await stranger.event("result"))["bytes"] == 0
        async with victim(tmp_path, "--rendezvous", via):
            meet = ("bind", "--port", "0", "--id", ID, "--rendezvous", via)
            async with pt(tmp_path / "late", *meet) as honest:
                assert await fetch(honest, SOON) == SECRET
        assert "Traceback" not in str(point)


def test_what_a_squatter_was_told_cannot_be_replayed(waits: Ends) -> None:
    waits["replay"].result()
