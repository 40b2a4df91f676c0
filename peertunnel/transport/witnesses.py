"""Witnesses of our ports: a NAT maps the one for TCP and the one for QUIC each by itself, and both must be known.

A relay that speaks both is reached over one of them, and would tell of that one only. So it is called over the other
one, too. Nothing else uses this connection, which ends with the first.
"""

from collections.abc import Iterable

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.transport import identify
from peertunnel.transport.candidates import place_at, reach_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dialer import DialError, dial
from peertunnel.transport.observed import Observed
from peertunnel.transport.swarm import Network

DIAL_TIMEOUT = 5.0  # seconds
PAUSE = 60.0  # seconds until a relay that doesn't answer there, or has gone, is called again
MAX_WITNESSES = 4  # at a time; where more relays are known, these do
MAX_PLACES = 4  # of one relay


class Witnesses:
    """Calls relays over the other transport.

    Args:
        network: has the transports.
        observed: takes what they see.
    """

    def __init__(self, network: Network, observed: Observed) -> None:
        self._network = network
        self._observed = observed
        self._asked: set[ID] = set()

    async def keep(self, connection: MuxedConnection, told: Iterable[str]) -> None:
        """Have a relay see our other port, too, as long as a connection to it lives.

        Args:
            connection: to the relay.
            told: its multiaddrs.
        """
        peer_id = connection.peer_id
        places = self._places(connection, told)
        if not places or peer_id in self._asked or len(self._asked) >= MAX_WITNESSES:
            return
        self._asked.add(peer_id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._call_often, peer_id, places)
                await connection.event_closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._asked.discard(peer_id)

    def _places(self, connection: MuxedConnection, told: Iterable[str]) -> list[Multiaddr]:
        """Give where a relay may speak the other transport: where it says so, and at the port of this connection."""
        here = str(connection.get_transport_addresses()[0])
        _, family, ip, layer, port, *_ = here.split("/")
        ways = {"tcp": f"/{family}/{ip}/udp/{port}/quic-v1", "udp": f"/{family}/{ip}/tcp/{port}"}
        reach = reach_of(place_at(here) or b"")
        found: dict[Multiaddr, None] = {}
        for text in (*told, ways[layer]):
            place = place_at(text)
            if place is not None and reach_of(place) >= reach:
                address = Multiaddr(place)
                is_other = (layer == "tcp") != ("tcp" in address)
                if is_other and any(way.can_dial(address) for way in self._network.transports):
                    found[address] = None
        return list(found)[:MAX_PLACES]

    async def _call_often(self, peer_id: ID, places: list[Multiaddr]) -> None:
        while True:
            try:
                connection = await dial(peer_id, places, self._network.transports, DIAL_TIMEOUT)
            except DialError:
                pass
            else:
                await self._listen_to(connection)
            await trio.sleep(PAUSE)

    async def _listen_to(self, connection: MuxedConnection) -> None:
        """Take what a relay tells, and keep its connection until it ends."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.start)
                await connection.event_started.wait()
                if self._observed.wants(connection):
                    self._observed.note(connection, b"")
                    self._observed.note(connection, (await identify.request(connection)).observed)
                    await connection.event_closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await connection.close()
