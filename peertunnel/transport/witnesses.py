"""Witnesses of our ports: a NAT maps the one for TCP and the one for QUIC each by itself, and both must be known.

A relay is reached over one of them, and would tell of that one only, or of none where the dial had to leave from another
port than the one that we listen on. So it is called over those that it hasn't seen, too. Nothing else uses these
connections, which end with the first.
"""

from collections.abc import Iterable, Iterator

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
    """Calls relays from those of our ports that they haven't seen.

    Args:
        network: has the transports.
        observed: takes what they see.

    Attributes:
        connections: those that stand.
    """

    def __init__(self, network: Network, observed: Observed) -> None:
        self._network = network
        self._observed = observed
        self._asked: set[ID] = set()
        self._again = trio.Event()  # replaced each time
        self.connections: set[MuxedConnection] = set()

    def retry(self) -> None:
        """Call at once where nobody has answered lately: the network has changed."""
        self._again.set()
        self._again = trio.Event()

    async def keep(self, connection: MuxedConnection, told: Iterable[str]) -> None:
        """Have a relay see all of our ports, as long as a connection to it lives.

        Args:
            connection: to the relay.
            told: its multiaddrs.
        """
        peer_id, unseen = connection.peer_id, list(self._unseen(connection, told))
        if not unseen or peer_id in self._asked or len(self._asked) >= MAX_WITNESSES:
            return
        self._asked.add(peer_id)
        try:
            async with trio.open_nursery() as nursery:
                for places in unseen:
                    nursery.start_soon(self._call_often, peer_id, places)
                await connection.event_closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._asked.discard(peer_id)

    def _unseen(self, connection: MuxedConnection, told: Iterable[str]) -> Iterator[list[Multiaddr]]:
        """Give where a relay may see each other port: where it says that it is, and at the port of this connection."""
        here = str(connection.get_transport_addresses()[0])
        _, family, ip, ours, port, *_ = here.split("/")
        reach = reach_of(place_at(here) or b"")
        texts = (*told, f"/{family}/{ip}/udp/{port}/quic-v1", f"/{family}/{ip}/tcp/{port}")
        for layer in ("tcp", "udp"):
            if layer == ours and self._observed.shows(connection):
                continue
            read = (place for text in texts if f"/{layer}/" in text and (place := place_at(text)))
            found = dict.fromkeys(Multiaddr(place) for place in read if reach_of(place) >= reach)
            if places := [
                place for place in found if any(t.can_dial(place) for t in self._network.transports)
            ]:
                yield places[:MAX_PLACES]

    async def _call_often(self, peer_id: ID, places: list[Multiaddr]) -> None:
        while True:
            again = (
                self._again
            )  # as it is now: what is said while a connection stands counts for the next call
            try:
                connection = await dial(peer_id, places, self._network.transports, DIAL_TIMEOUT)
            except DialError:
                pass
            else:
                await self._listen_to(connection)
            with trio.move_on_after(PAUSE):
                await again.wait()

    async def _listen_to(self, connection: MuxedConnection) -> None:
        """Take what a relay tells, and keep its connection until it ends."""
        self.connections.add(connection)
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
            self.connections.remove(connection)
            with trio.CancelScope(shield=True):
                await connection.close()
