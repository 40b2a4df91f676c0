"""Who is let in: servers are asked to call back (AutoNAT v2), and this machine calls itself.

The port that they are to call has called one of them, and nobody else: this one is an acquaintance, the others are
strangers (RFC 5780 section 4.4, with two servers where it has two addresses of one).
"""

from dataclasses import dataclass

import trio

from peertunnel.doctor.facts import Sighting
from peertunnel.doctor.servers import Server, seen_by
from peertunnel.errors import NotFound
from peertunnel.host import Host
from peertunnel.protocols.autonat.messages import DIAL_BACK
from peertunnel.transport.autonat import DialBacks
from peertunnel.transport.candidates import place_at
from peertunnel.transport.connection import MuxedConnection

HAIRPIN = 2.0  # seconds; the router is a few milliseconds away
MAX_STRANGERS = 2  # that are asked


class Called:
    """A host that servers are asked to call.

    Args:
        host: listens.
        nursery: where the calls are taken.
        within: seconds in which a server that reaches it does so: two or three round trips, and a retransmission.
    """

    def __init__(self, host: Host, nursery: trio.Nursery, within: float) -> None:
        self.host = host
        self.within = within
        self._dial_backs = DialBacks(nursery)
        host.serve(DIAL_BACK, self._dial_backs.accept)

    async def back(self, connection: MuxedConnection, place: str) -> bool | None:
        """Return whether a server reaches the host at an address; None if it doesn't say.

        Args:
            connection: to the server, under the host's peer id.
            place: multiaddr.
        """
        if (binary := place_at(place)) is None:
            return None
        with trio.move_on_after(self.within):
            return await self._dial_backs.ask(connection, binary)
        return False  # who is silent for so long dials in vain: a refusal comes at once


@dataclass(frozen=True, slots=True)
class Comers:
    """Who reached a port that had called one server only; None is not known. seen: where the port is from outside."""

    seen: Sighting | None = None
    strangers: bool | None = None
    acquaintances: bool | None = None

    @property
    def place(self) -> str:
        """The port's multiaddr outside."""
        return f"/ip{self.seen.ip.version}/{self.seen.ip}/tcp/{self.seen.port}" if self.seen else ""


async def who_comes_in(quiet: Called, servers: list[Server], version: int) -> Comers:
    """Find out who comes in.

    Args:
        quiet: has called nobody.
        servers: those that call back; they are connected to another host of the same peer id.
        version: of IP.
    """
    if not servers or (seen := await seen_by(quiet.host, servers[0], version, quiet.within)) is None:
        return Comers()
    place = Comers(seen).place
    first, *others = (server.connections[version] for server in servers)
    strangers = [other for other in others if _ip(other) != _ip(first)][:MAX_STRANGERS]
    answers: dict[MuxedConnection, bool | None] = {}

    async def ask(connection: MuxedConnection) -> None:
        answers[connection] = await quiet.back(connection, place)

    async with trio.open_nursery() as nursery:
        for connection in (first, *strangers):
            nursery.start_soon(ask, connection)
    told = {answers[stranger] for stranger in strangers} - {None}
    return Comers(seen, (True in told) if told else None, answers[first])


async def reaches(caller: Host, peer_id: str, place: str) -> bool:
    """Return whether a host of this machine reaches another one at an address outside."""
    try:
        await caller.dial(peer_id, [place], HAIRPIN)
    except NotFound:
        return False
    return True


def _ip(connection: MuxedConnection) -> str:
    remote = connection.get_remote_address()
    return "" if remote is None else remote[0]
