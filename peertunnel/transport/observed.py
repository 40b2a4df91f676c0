"""Where others see us: our addresses behind a NAT, as peers that we have dialled report them (libp2p specs, identify).

Only connections that left from a port that we listen on count: what a NAT has mapped for them is where a hole can be
punched, and where a NAT that maps by the inner address alone lets everybody in.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable

import trio
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from peertunnel.budget import place_of
from peertunnel.protocols.punch import Mapping
from peertunnel.transport.addresses import is_loopback
from peertunnel.transport.connection import MuxedConnection

MAX_OBSERVERS = 8  # living connections of a family and a transport whose peers are asked; two in different networks would do


class Observed:
    """What living connections' peers have told.

    Args:
        listening: gives the multiaddrs that we listen on.
    """

    def __init__(self, listening: Callable[[], Iterable[str]]) -> None:
        self._listening = listening
        self._seen: dict[MuxedConnection, str] = {}  # "" until the peer has answered
        self._looked_at = float("-inf")  # trio's clock, seconds

    def wants(self, connection: MuxedConnection) -> bool:
        """Return whether to ask a peer how it sees us: it can know, and few have told so far."""
        self._forget_dead()
        kind = _kind_of(connection)
        alike = [seen for seen in self._seen if _kind_of(seen) == kind]
        return len(alike) < MAX_OBSERVERS and _is_ours(connection) and self.shows(connection)

    def misses(self, connection: MuxedConnection) -> bool:
        """Return whether a dial of ours had to leave from another port than the one that we listen on."""
        return _is_ours(connection) and bool(self._ports(connection)) and not self.shows(connection)

    def shows(self, connection: MuxedConnection) -> bool:
        """Return whether the peer sees a port that we listen on."""
        return connection.local_port in self._ports(connection)

    def _ports(self, connection: MuxedConnection) -> set[int]:
        """Return the ports from which a connection of its kind should have left."""
        kind, listening = _kind_of(connection), (address.split("/") for address in self._listening())
        return {
            int(port)
            for _, family, ip, layer, port, *_ in listening
            if (family, layer) == kind and not is_loopback(ip)
        }

    def __contains__(self, connection: MuxedConnection) -> bool:
        """Return whether a connection's peer was asked how it sees us."""
        return connection in self._seen

    def note(self, connection: MuxedConnection, address: bytes) -> None:
        """Take a peer's answer: a multiaddr in its binary form, empty while it has yet to come."""
        self._seen[connection] = read_observed(address)

    async def look_again(self, interval: float = 0.0) -> None:
        """Ask all who were asked once more: another network, or router, leaves a connection over QUIC standing.

        interval: seconds from one look to the next at least.
        """
        if trio.current_time() < self._looked_at + interval:
            return
        self._looked_at = trio.current_time()
        self._forget_dead()
        async with trio.open_nursery() as nursery:
            for connection in self._seen:
                nursery.start_soon(self._ask_again, connection)

    async def _ask_again(self, connection: MuxedConnection) -> None:
        self.note(connection, (await connection.acquaintance.ask_again()).observed)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our addresses as they are seen, without our peer id, those that most peers agree on first."""
        self._forget_dead()
        return tuple(address for address, _ in Counter(filter(None, self._seen.values())).most_common())

    @property
    def quic(self) -> tuple[str, ...]:
        """Those of our addresses at which the internet sees our port for QUIC over IPv4."""
        return tuple(filter(_is_public_quic, self.addresses))

    @property
    def quic_observers(self) -> list[MuxedConnection]:
        """The connections whose peers see it there, the latest first."""
        self._forget_dead()
        return [connection for connection in reversed(self._seen) if _is_public_quic(self._seen[connection])]

    @property
    def quic_mapping(self) -> Mapping:
        """What our NAT does with that port, as far as it shows.

        One that has kept the port's number most likely keeps the port, too: few do for each destination.
        """
        seen = {connection: self._seen[connection] for connection in self.quic_observers}
        by_port: dict[int, set[str]] = {}
        for connection, address in seen.items():
            by_port.setdefault(connection.local_port, set()).add(address)
        if any(len(addresses) > 1 for addresses in by_port.values()):
            return Mapping.CHANGING
        is_kept = any(f"/udp/{c.local_port}/" in address for c, address in seen.items())
        is_agreed = len({place_of(connection.get_remote_address()) for connection in seen}) > 1
        return Mapping.STEADY if is_kept or is_agreed else Mapping.UNKNOWN

    def _forget_dead(self) -> None:
        self._seen = {connection: seen for connection, seen in self._seen.items() if not connection.is_closed}


def _is_ours(connection: MuxedConnection) -> bool:
    """Return whether we have dialled, and not on this machine."""
    remote = connection.get_remote_address()
    is_direct = connection.way.kind == "direct" and connection.is_initiator
    return is_direct and remote is not None and not is_loopback(remote[0])


def _kind_of(connection: MuxedConnection) -> tuple[str, ...]:
    return _kind(str(connection.get_transport_addresses()[0]))


def _kind(address: str) -> tuple[str, ...]:
    """Return the family and the transport of a multiaddr: a NAT maps each port of each by itself."""
    return tuple(address.split("/")[1:4:2])


def _is_public_quic(address: str) -> bool:
    return _kind(address) == ("ip4", "udp") and ipaddress.ip_address(address.split("/")[2]).is_global


def read_observed(observed: bytes) -> str:
    """Return an address as text, "" for what is none."""
    try:
        return str(Multiaddr(observed)) if observed else ""
    except (MultiaddrError, ValueError):
        return ""
