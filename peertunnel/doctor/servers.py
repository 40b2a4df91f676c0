"""The peers that can tell something about us: those that the user has named, and how they are called."""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from peertunnel.config import Config
from peertunnel.discovery.dht_bootstrap import resolve
from peertunnel.discovery.dht_contacts import address_texts, id_text
from peertunnel.doctor.facts import Sighting, sighting
from peertunnel.errors import NotFound
from peertunnel.host import Host
from peertunnel.interfaces import IPAddress
from peertunnel.multiaddrs import address_texts as read_addresses
from peertunnel.protocols.address import split_address
from peertunnel.protocols.autonat.messages import DIAL_REQUEST
from peertunnel.transport.addresses import is_loopback
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import request as identify

MAX_SERVERS = 16  # peers that are called; the public DHT's name stands for some five


@dataclass(slots=True, eq=False)
class Server:
    """A peer, and what calling it by IPv4 and by IPv6 has shown.

    Attributes:
        peer_id: base58.
        places: its multiaddrs, without the peer id; more once it has told them.
        connections: those that stand, by IP version.
        protocols: what it speaks.
        silent: those of its places that were visited in vain, or are now; they are not called again.
    """

    peer_id: str
    places: tuple[str, ...]
    connections: dict[int, MuxedConnection] = field(default_factory=dict)
    protocols: frozenset[str] = frozenset()
    silent: set[str] = field(default_factory=set)

    @property
    def calls_back(self) -> bool:
        """Whether it tells if it can dial us (AutoNAT v2)."""
        return DIAL_REQUEST in self.protocols

    def of_version(self, version: int) -> list[str]:
        """Give where it may answer by an IP version, or by a name that may lead there."""
        names = ("ip6", "dns6") if version == 6 else ("ip4", "dns4", "dns")
        found = (place for place in self.places if place.split("/")[1] in names)
        return [place for place in found if "/p2p-circuit" not in place and place not in self.silent]

    def sees_the_world(self, version: int) -> bool:
        """Return whether it is connected by an IP version, and from a public address."""
        remote = self.connections[version].get_remote_address() if version in self.connections else None
        return remote is not None and ipaddress.ip_address(remote[0].partition("%")[0]).is_global

    @property
    def by_udp(self) -> list[str]:
        """Give where it speaks QUIC; this machine itself is no test of a network."""
        found = (place for place in self.places if "/quic-v1" in place and "/p2p-circuit" not in place)
        return [place for place in found if (ip := _ip_of(place)) is None or not ip.is_loopback]

    @property
    def has_ip6(self) -> bool:
        """Whether it is known to have a public IPv6 address."""
        return any(
            (ip := _ip_of(place)) is not None and ip.version == 6 and ip.is_global for place in self.places
        )


def _ip_of(place: str) -> IPAddress | None:
    """Return the IP address that a multiaddr begins with, None for a name."""
    _, kind, host, *_ = [*place.split("/"), ""]  # some have one part only
    return ipaddress.ip_address(host) if kind in ("ip4", "ip6") else None


def named_servers(config: Config) -> list[Server]:
    """Give the peers that the settings name by their addresses, each once."""
    return _gather(text for text in _named(config) if not text.startswith("/dnsaddr/"))


async def resolved_servers(config: Config) -> list[Server]:
    """Give the peers behind the names in the settings, which takes seconds where no name server answers."""
    contacts = await resolve(tuple(text for text in _named(config) if text.startswith("/dnsaddr/")))
    known = ((contact, id_text(contact.peer_id)) for contact in contacts)
    return _gather(text for contact, peer_id in known if peer_id for text in address_texts(contact, peer_id))


def _named(config: Config) -> tuple[str, ...]:
    ways_in = config.entries if config.dht else config.bootstrap
    return tuple(dict.fromkeys((*config.relays, *config.points, *ways_in)))


def _gather(texts: Iterable[str]) -> list[Server]:
    places: dict[str, dict[str, None]] = {}
    for text in texts:
        place, peer_id = split_address(text)
        if peer_id is not None:
            places.setdefault(peer_id, {})[place] = None
    return [Server(peer_id, tuple(found)) for peer_id, found in places.items()][:MAX_SERVERS]


async def visit(host: Host, server: Server, within: float) -> list[Sighting]:
    """Call a server by both versions of IP, for so many seconds, and give how it sees the port that we listen on."""
    seen: list[Sighting] = []

    async def call(version: int) -> None:
        places = server.of_version(version)
        if version in server.connections or not places:
            return
        tried = {place for place in places if ("/quic-v1" in place) == (host.quic is not None)}
        server.silent |= tried
        with suppress(NotFound):
            connection = server.connections[version] = await host.dial(server.peer_id, places, within)
            server.silent -= tried
            seen.extend(await _ask(host, server, connection))

    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 6)
            await call(4)
            await call(6)  # one that was named by IPv4 may have told by now that it has IPv6
    return seen


async def seen_by(host: Host, server: Server, version: int, within: float) -> Sighting | None:
    """Call a server by one IP version, for so many seconds, and give how it sees the port that we listen on."""
    with trio.move_on_after(within), suppress(NotFound):
        connection = await host.dial(server.peer_id, server.of_version(version), within)
        return next(iter(await _ask(host, server, connection)), None)
    return None


async def _ask(host: Host, server: Server, connection: MuxedConnection) -> list[Sighting]:
    answer = await identify(connection)
    told = read_addresses(answer.addresses, server.peer_id)
    server.places = tuple(dict.fromkeys((*server.places, *(split_address(place)[0] for place in told))))
    server.protocols |= frozenset(answer.protocols)
    remote = connection.get_remote_address()
    if remote is None or is_loopback(remote[0]) or not _leaves_from_listener(host, connection):
        return []
    [*seen] = read_addresses([answer.observed], server.peer_id)
    found = (sighting(remote[0].partition("%")[0], place) for place in seen)
    return [one for one in found if one is not None]


def _leaves_from_listener(host: Host, connection: MuxedConnection) -> bool:
    """Return whether a connection shows what a NAT makes of the port that we listen on."""
    ports = {place.split("/")[4] for place in host.listening}
    return str(connection.local_port) in ports
