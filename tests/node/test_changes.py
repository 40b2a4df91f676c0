"""The network changes under a node: addresses and routes come and go, and machines sleep."""

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from peertunnel import changes
from peertunnel.interfaces import InterfaceAddress, interface_addresses
from peertunnel.portmap import PortMapper, gateway
from tests.interop.peers import running
from tests.node.lan import open_machine

LOOPBACK = "127.0.0.1"
NOTICED_SECONDS = 1.0
WATCH = """
import json, trio, trio.testing
from peertunnel import changes

changes.LOOK = 1000.0

async def note():
    network = sorted(address for address in changes._network() if ":" not in address)
    print(json.dumps({"kind": "change", "network": network}), flush=True)
    await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, note)
        await trio.testing.wait_all_tasks_blocked()
        print('{"kind": "ready"}', flush=True)

trio.run(main)
"""


class Network:
    """What the machine has, and how often somebody was told that it changed."""

    def __init__(self) -> None:
        self.addresses = [InterfaceAddress("eth0", 1, ip_address("192.0.2.7"))]
        self.asleep = 0.0  # seconds in all
        self.notes = 0

    async def note(self) -> None:
        self.notes += 1

    async def look(self) -> None:
        """Let the next look at the network come."""
        await trio.sleep(changes.LOOK * 1.5)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network()
    monkeypatch.setattr(changes, "interface_addresses", lambda: tuple(found.addresses))
    monkeypatch.setattr(changes, "_FAR", ())  # what this machine really has
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + found.asleep)
    return found


async def test_changes_are_told_and_nothing_else(network: Network, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, network.note)
        await network.look()
        assert network.notes == 0
        network.addresses.append(InterfaceAddress("wlan0", 2, ip_address("198.51.100.7")))
        await network.look()
        assert network.notes == 1
        del network.addresses[0]
        await network.look()
        assert network.notes == 2
        network.asleep += changes.ASLEEP / 2  # the clock was set, a little
        await network.look()
        assert network.notes == 2
        network.asleep += 2 * changes.ASLEEP
        await network.look()
        assert network.notes == 3
        before, network.addresses = network.addresses, []
        await network.look()
        assert network.notes == 3  # that there is no network is of no use to anybody
        network.addresses = before
        await network.look()
        assert network.notes == 4
        nursery.cancel_scope.cancel()


async def test_a_note_that_fails_keeps_nobody_from_being_told(
    network: Network, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    told = 0

    async def fail() -> None:
        nonlocal told
        told += 1
        raise KeyError("unforeseen")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, fail)
        nursery.start_soon(changes.watch_network, network.note)
        await network.look()
        for change in (1, 2):
            network.asleep += 2 * changes.ASLEEP
            await network.look()
            assert told == network.notes == change
        nursery.cancel_scope.cancel()
    assert "unforeseen" in caplog.text


async def test_where_the_system_tells_nothing_it_is_looked_at(
    network: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "AF_NETLINK", 99)  # which no system has
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, network.note)
        await network.look()
        network.addresses.append(InterfaceAddress("wlan0", 2, ip_address("198.51.100.7")))
        await network.look()
        assert network.notes == 1
        nursery.cancel_scope.cancel()


# -- while there are no descriptors left -------------------------------------------------------------------------------


@contextmanager
def out_of_files() -> Iterator[None]:
    """Have none left but those that are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        probe = stack.enter_context(open(os.devnull))
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 1, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with pytest.raises(OSError, match="Too many open files"):
            while True:  # those in between
                stack.enter_context(open(os.devnull))
        yield


async def test_a_network_that_cannot_be_looked_at_is_no_news(
    network: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_FAR", ((socket.AF_INET, LOOPBACK),))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.watch_network, network.note)
        await network.look()
        with out_of_files():
            await network.look()
        await network.look()
        assert network.notes == 0
        nursery.cancel_scope.cancel()


def test_interfaces_that_cannot_be_looked_at_are_what_they_were() -> None:
    before = interface_addresses()
    with out_of_files():
        assert interface_addresses() == before


async def test_routers_that_cannot_be_looked_for_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = tmp_path / "route"
    routes.write_text("lo 00000000 0100007F 0003 0 0 100 00000000 0 0 0\n")
    monkeypatch.setattr(gateway, "_ROUTES", routes)
    monkeypatch.setattr(gateway, "_ROUTES6", tmp_path / "none")
    mapper = PortMapper(lambda: ())
    async with trio.open_nursery() as nursery:
        await mapper._look(nursery)
        assert [str(router.ip) for router in mapper._keepers] == [LOOPBACK]
        with out_of_files():
            await mapper._look(nursery)
        assert len(mapper._keepers) == 1
        nursery.cancel_scope.cancel()


# -- on a machine of its own -------------------------------------------------------------------------------------------


async def test_changes_are_told_at_once() -> None:
    """Addresses and routes that come, or go while others stay, whatever the call before is still at."""
    async with open_machine() as machine, running(machine.command(sys.executable, "-c", WATCH)) as watcher:
        await watcher.event("ready")
        first = await machine.cable("10.1.0.1/24")
        await watcher.event("change", NOTICED_SECONDS, network=["10.1.0.1"])
        await machine.cable("10.2.0.1/24")
        await watcher.event("change", NOTICED_SECONDS, network=["10.1.0.1", "10.2.0.1"])
        await machine.run("ip", "route", "add", "default", "via", "10.1.0.2")
        await watcher.event("change", NOTICED_SECONDS, network=["10.1.0.1", "10.2.0.1", "from 10.1.0.1"])
        await machine.run("ip", "route", "replace", "default", "via", "10.2.0.2")
        await watcher.event("change", NOTICED_SECONDS, network=["10.1.0.1", "10.2.0.1", "from 10.2.0.1"])
        await first.down()
        await watcher.event("change", NOTICED_SECONDS, network=["10.2.0.1", "from 10.2.0.1"])
