"""AutoNAT with rust-libp2p, as its client and as its server; go-libp2p's dials public addresses only: see tests/nat."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.autonat.messages import DIAL_BACK
from peertunnel.transport.autonat import DialBacks, ask_v1
from peertunnel.transport.autonat_server import AutonatServer
from peertunnel.transport.connection import MuxedConnection
from tests.interop.peers import running
from tests.interop.tunnels import tcp_address
from tests.node.pair import until

LISTEN = "/ip4/127.0.0.1/tcp/0"
PATIENCE = 60  # seconds; rust-libp2p waits before its first question


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    async with open_host(Identity.ephemeral(), (LISTEN,)) as opened:
        yield opened


@asynccontextmanager
async def server(rspeer: Path) -> AsyncIterator[str]:
    """Run a server of rust-libp2p; give its address."""
    async with running([str(rspeer), "relay", "--transport", "noise", "--listen", LISTEN]) as process:
        yield tcp_address(await process.event("ready"))


async def meet(asker: Host, address: str) -> MuxedConnection:
    place, _, peer_id = address.rpartition("/p2p/")
    return await asker.dial(peer_id, [place], PATIENCE)


def place(address: str) -> bytes:
    return bytes(Multiaddr(address.partition("/p2p/")[0]).to_bytes())


@pytest.mark.parametrize("version", [1, 2])
async def test_rust_tells_us_whether_it_reaches_us(rspeer: Path, version: int) -> None:
    async with server(rspeer) as address, host() as asker:
        dial_backs = DialBacks(asker.nursery)
        asker.serve(DIAL_BACK, dial_backs.accept)
        connection = await meet(asker, address)
        open_place, closed_place = place(asker.addresses[0]), place("/ip4/127.0.0.1/tcp/1")
        with trio.fail_after(PATIENCE):
            if version == 2:
                assert await dial_backs.ask(connection, open_place) is True
                assert await dial_backs.ask(connection, closed_place) is False
            else:
                assert await ask_v1(connection, ID.from_base58(asker.peer_id), open_place) is True


async def test_we_tell_rust_whether_we_reach_it(rspeer: Path) -> None:
    async with host() as point:
        answering = AutonatServer(point)
        await point.nursery.start(answering.run)
        common = ["probe", "--transport", "noise", "--listen", LISTEN, "--autonat", "--register"]
        command = [str(rspeer), *common, "--peer", point.addresses[0], "--seconds", str(PATIENCE)]
        async with running(command) as process:
            await process.event("external", PATIENCE)
            await until(lambda: answering.answers["1", "ok"] and answering.answers["2", "ok"])
            assert not answering.answers.keys() - {("1", "ok"), ("2", "ok")}
