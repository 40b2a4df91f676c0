"""A loopback wire for mDNS nodes in one process: on a port of its own, so that nobody else is heard there."""

import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked

from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.mdns import Mdns
from peertunnel.discovery.mdns_link import open_link, receive, send
from peertunnel.discovery.mdns_peer import Sighting, encode_peer, sightings
from peertunnel.discovery.mdns_wire import SERVICE, decode, encode_query
from peertunnel.interfaces import InterfaceAddress, interface_addresses
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.service import Service

LOOPBACK = next(address for address in interface_addresses() if str(address.ip) == "127.0.0.1")
_seeds = (number.to_bytes(32) for number in itertools.count())


def new_peer() -> str:
    """Give the id of a peer that nobody else is."""
    return ed25519_peer_id(next(_seeds))


def new_service() -> Service:
    """Give a service that nobody else provides."""
    return Service("a service", next(_seeds))


def pinned(peer_id: str) -> Service:
    """Give the service of one peer."""
    return Service("a peer", None, peer_id)


def place(peer_id: str, port: int = 4001) -> str:
    """Give an address of a peer on this machine."""
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id}"


class Provider:
    """A peer that announces a service; its addresses may change."""

    def __init__(self, service: Service, port: int = 4001, peer_id: str | None = None) -> None:
        self.peer_id = peer_id or new_peer()
        self.addresses: tuple[str, ...] = (place(self.peer_id, port),)
        self.announcement = Announcement(
            self.peer_id, lambda: self.addresses, lambda: service.topics_to_publish(time.time())
        )

    @property
    def candidate(self) -> Candidate:
        """What others should find."""
        return Candidate(self.peer_id, self.addresses, "mdns")


class Ear:
    """Hears everything that is said on the wire, and when; it can speak, too."""

    def __init__(self, sock: socket.socket) -> None:
        self.questions: list[float] = []
        self.sightings: list[tuple[float, Sighting]] = []
        self._sock = sock

    async def listen(self) -> None:
        """Listen until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                message = decode(receive(self._sock)[0])
            except RemoteProtocolError:
                continue
            now = trio.current_time()
            if message.is_response:
                self.sightings += [(now, sighting) for sighting in sightings(message)]
            elif SERVICE in message.questions:
                self.questions.append(now)

    def of(self, peer_id: str) -> list[Sighting]:
        """Give what was said of a peer."""
        return [sighting for _, sighting in self.sightings if sighting.peer_id == peer_id]

    def times(self, peer_id: str, since: float = 0) -> list[float]:
        """Give how many seconds after a moment something was said of a peer."""
        said = [when for when, sighting in self.sightings if sighting.peer_id == peer_id]
        return [round(when - since, 6) for when in said if when >= since]

    def asked(self, since: float = 0) -> list[float]:
        """Give how many seconds after a moment somebody asked."""
        return [round(when - since, 6) for when in self.questions if when >= since]

    def ask(self) -> None:
        """Ask for all peers."""
        self.say(encode_query())

    def say(self, *messages: bytes) -> None:
        """Say anything."""
        for message in messages:
            send(self._sock, message)

    def tell(self, peer_id: str, port: int = 4001, tags: tuple[str, ...] = (), label: bytes = b"x") -> None:
        """Say that a peer is at a port of this machine."""
        self.say(*encode_peer(32 * label, [place(peer_id, port)], tags, 120))


@dataclass
class Wire:
    """A wire with an ear and a running node."""

    port: int
    nursery: trio.Nursery
    ear: Ear
    mdns: Mdns

    async def node(
        self,
        interfaces: Callable[[], tuple[InterfaceAddress, ...]] = lambda: (LOOPBACK,),
        nursery: trio.Nursery | None = None,
    ) -> Mdns:
        """Run a further node."""
        node = Mdns(interfaces, self.port)
        (nursery or self.nursery).start_soon(node.run)
        await wait_all_tasks_blocked()
        return node


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    """Have a wire until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(LOOPBACK.ip), 0))
        port = probe.getsockname()[1]
    with open_link(LOOPBACK, port) as sock:
        ear, mdns = Ear(sock), Mdns(lambda: (LOOPBACK,), port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.listen)
            nursery.start_soon(mdns.run)
            await wait_all_tasks_blocked()
            yield Wire(port, nursery, ear, mdns)
            nursery.cancel_scope.cancel()


async def next_of(channel: trio.MemoryReceiveChannel[Candidate], within: float) -> Candidate:
    """Wait some seconds for the next candidate."""
    with trio.fail_after(within):
        return await channel.receive()
