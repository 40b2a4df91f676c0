"""The port mapper at a router on a loopback address: what fails in between, and what it does when things change."""

import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peertunnel.portmap import Listener, PortMapper, announcements, gateway, keeper, mapper
from peertunnel.portmap.router import Mapping
from peertunnel.portmap.upnp import UpnpRouter
from peertunnel.protocols.portmap import ALL_HOSTS
from tests.node.igd_server import IgdServer, running_igd
from tests.node.pair import until

ROUTER = f"127.80.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"  # of our own, as in test_portmap
PLACE, OTHER_PLACE = "/ip4/1.2.4.1/tcp/4001", "/ip4/1.2.4.1/tcp/4002"
OFTEN = 0.01  # seconds


@asynccontextmanager
async def mapping(wanted: list[Listener]) -> AsyncIterator[tuple[PortMapper, IgdServer]]:
    """Run a mapper of what is wanted, and its router."""
    async with running_igd(IgdServer(ROUTER)) as server, trio.open_nursery() as nursery:
        running = PortMapper(lambda: wanted)
        nursery.start_soon(running.run)
        yield running, server
        nursery.cancel_scope.cancel()


def calls(server: IgdServer, name: str) -> list[str]:
    """Give the external ports that the router was called for."""
    return [call.value("NewExternalPort") for call in server.calls if call.name == name]


@pytest.fixture(autouse=True)
def route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the default route lead to the router, and the mapper look at it often."""
    number = int.from_bytes(ipaddress.IPv4Address(ROUTER).packed, "little")
    (tmp_path / "route").write_text(f"lo 00000000 {number:08X} 0003 0 0 100 00000000 0 0 0\n")
    monkeypatch.setattr(gateway, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(gateway, "_ROUTES6", tmp_path / "none")
    monkeypatch.setattr(mapper, "_LOOK", OFTEN)
    monkeypatch.setattr(keeper, "_SHORTEST", OFTEN)


async def test_other_listeners_are_mapped_instead() -> None:
    wanted = [Listener("tcp", 4001)]
    async with mapping(wanted) as (running, server):
        await until(lambda: running.addresses == (PLACE,))
        wanted[:] = [Listener("tcp", 4002)]
        await until(lambda: running.addresses == (OTHER_PLACE,))
        assert calls(server, "DeletePortMapping") == ["4001"]
    assert calls(server, "DeletePortMapping") == ["4001", "4002"]


async def test_a_keeper_that_fails_unforeseen_tells_no_address_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_broken, map_one = False, UpnpRouter.map

    async def unsafe(router: UpnpRouter, listener: Listener, lease: int, before: Mapping | None) -> Mapping:
        if is_broken:
            raise KeyError("unforeseen")
        return await map_one(router, listener, lease, before)

    monkeypatch.setattr(UpnpRouter, "map", unsafe)
    wanted = [Listener("tcp", 4001)]
    async with mapping(wanted) as (running, server):
        await until(lambda: running.addresses == (PLACE,))
        is_broken = True
        wanted.append(Listener("tcp", 4002))
        await until(lambda: not running.addresses and calls(server, "DeletePortMapping") == ["4001"])
        is_broken = False
        await until(lambda: running.addresses == (PLACE, OTHER_PLACE))
    assert "unforeseen" in caplog.text


async def test_a_mapper_that_could_not_listen_hears_routers_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper, "_DEAF", OFTEN)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router,
    ):
        taken.bind((ALL_HOSTS, 0))
        group = taken.getsockname()
        monkeypatch.setattr(announcements, "CLIENT_PORT", group[1])
        router.bind((ROUTER, 0))
        router.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))

        async with mapping([Listener("tcp", 4001)]) as (running, server):
            await until(lambda: running.addresses == (PLACE,))
            taken.close()

            def is_renewed() -> bool:
                router.sendto(b"I have restarted", group)
                return len(calls(server, "AddPortMapping")) > 1

            await until(is_renewed)
