"""The network changes under a node: addresses come and go, and machines sleep."""

import time
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock

from peertunnel import changes
from peertunnel.interfaces import InterfaceAddress


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
        nursery.cancel_scope.cancel()
