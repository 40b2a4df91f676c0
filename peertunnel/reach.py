"""How a node gets to be reached: what it does about the NATs and firewalls in front of it, as long as it runs.

Every node has its router let others in, if the router does such things, and punches holes. One that wants to be called
finds out whether strangers reach it, and where they don't, reserves at relays that it finds among its peers.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from peertunnel.boundary import repeated
from peertunnel.changes import watch_network
from peertunnel.events import Emit, PunchFailed
from peertunnel.host import Host
from peertunnel.portmap import Listener, PortMapper, Status, listeners
from peertunnel.protocols.address import split_address
from peertunnel.transport.punch import HolePunching
from peertunnel.transport.reachability import OwnReachability

LOOK = 30.0  # seconds between looks at where others see us; nothing tells of a router that has got another address
if TYPE_CHECKING:
    from trio_typing import TaskStatus


class Reach:
    """The ways to a node.

    Args:
        host: the node.
        relays: multiaddrs of relays that the user has named, each ending in /p2p/ and the peer id.
        is_hidden: nobody may learn our addresses, so there are no ways but through these relays.
        maps_ports: whether to ask the router.
        finds_relays: whether to use relays that the user has not named.
        emit: takes PunchFailed.
    """

    def __init__(
        self,
        host: Host,
        relays: Iterable[str] = (),
        *,
        is_hidden: bool = False,
        maps_ports: bool = False,
        finds_relays: bool = False,
        emit: Emit = lambda event: None,
    ) -> None:
        self._host = host
        self._is_hidden = is_hidden
        self._maps_ports = maps_ports
        self._finds_relays = finds_relays
        self._punching = HolePunching(
            host, on_failed=lambda peer_id, reason: emit(PunchFailed(peer_id, reason))
        )
        self._mapper = PortMapper(self._listeners, secret=host.sign(b"port mapping"))
        self._preferred: list[str] = []
        for address in relays:
            place, peer_id = split_address(address)
            if peer_id is not None:
                self._preferred.append(peer_id)
                host.reservations.offer(peer_id, [place])
        self.own = OwnReachability(host, self._preferred, mapped=lambda: self._mapper.addresses)
        host.add_addresses(lambda: self._mapper.addresses)
        host.add_addresses(lambda: self.own.addresses)

    @property
    def mappings(self) -> tuple[Status, ...]:
        """How our ports stand at the routers."""
        return self._mapper.statuses

    async def asked(self) -> None:
        """Wait until every router has mapped something, or has been asked in vain: some seconds."""
        await self._mapper.settled()

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Do what every node does until cancelled; started when holes can be punched."""
        async with trio.open_nursery() as nursery:
            if not self._is_hidden:
                await nursery.start(self._punching.run)
            if self._maps_ports and not self._is_hidden:
                nursery.start_soon(self._mapper.run)
            nursery.start_soon(watch_network, self._note_change)
            nursery.start_soon(repeated, LOOK, self._host.observed.look_again)
            task_status.started()

    async def be_called(self) -> None:
        """Do what it takes to be called by others, until cancelled."""
        reservations = self._host.reservations
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reservations.run)
            if self._is_hidden:
                await trio.sleep_forever()
            await nursery.start(self.own.run)
            while True:
                reservations.take_found(self._finds_relays and self.own.needs_relays)
                await self.own.changed()

    async def _note_change(self) -> None:
        self._punching.retry()
        self.own.retry()
        await self._host.note_changed_network()

    def _listeners(self) -> tuple[Listener, ...]:
        return listeners(self._host.listening)
