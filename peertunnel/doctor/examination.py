"""The story of `pt doctor`: everything is measured side by side, and told in one order as soon as it is known."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from peertunnel.boundary import contained
from peertunnel.config import Config, Transports
from peertunnel.discovery.dht import Dht
from peertunnel.doctor import judgements
from peertunnel.doctor.behaviour import Mapping, mapping
from peertunnel.doctor.facts import Datagrams, Facts, Relay
from peertunnel.doctor.nat import Called, reaches, who_comes_in
from peertunnel.doctor.outlook import outlook
from peertunnel.doctor.relays import try_relay
from peertunnel.doctor.servers import Server, named_servers, resolved_servers, visit
from peertunnel.errors import NotFound, PeerTunnelError
from peertunnel.events import Checked, Emit
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.interfaces import interface_addresses
from peertunnel.node import Node
from peertunnel.peers import RequestError
from peertunnel.protocols.address import split_address
from peertunnel.streams import Unavailable
from peertunnel.transport.quic import why_not

MAX_FOUND = 2  # relays that are tried when the user has named none; as many as a node wants
DHT_SETTLES = 1.5  # seconds without another node, after which the DHT is counted
VISIT = 0.4  # of the time for a server to answer, and again for it to call back
_LOOK = 0.1  # seconds between looks at it

Judge = Callable[[Facts], Checked]


class NoWay(PeerTunnelError):
    """No tunnel will work here."""

    hint = "Do what the checks advise, the problems first."


async def doctor(node: Node, config: Config, emit: Emit) -> None:
    """Examine this network.

    Args:
        node: opened as the settings say.
        config: the settings; `wait` is how many seconds it may take.
        emit: takes a Checked for each check.

    Raises:
        NoWay: no tunnel is to be expected.
    """
    async with _probes(config) as (asker, quiet):
        examination = Examination(node, config, asker, quiet)
        last = await examination.run(emit, trio.current_time() + config.wait)
    if last.verdict == "problem":
        raise NoWay()


@asynccontextmanager
async def _probes(config: Config) -> AsyncIterator[tuple[Host, Host]]:
    """Run two hosts under one new peer id, each with a port of its own, that nobody has called or been called from."""
    identity = Identity.ephemeral()
    transport: Transports = "quic" if config.transport == "quic" else "tcp"
    listen = () if config.ways == "relayed" else _any_port(config, transport)
    async with (
        open_host(identity, listen, transport) as asker,
        open_host(identity, listen, transport) as quiet,
    ):
        yield asker, quiet


def _any_port(config: Config, transport: Transports) -> tuple[str, ...]:
    """Give where we listen, with other ports."""
    suffix = "udp/0/quic-v1" if transport == "quic" else "tcp/0"
    return tuple(dict.fromkeys("/".join((*place.split("/")[:3], suffix)) for place in config.listen))


class Examination:
    """What is measured, and when.

    Args:
        node: the user's.
        config: the settings.
        asker: calls all servers.
        quiet: listens under the asker's peer id, and calls one of them.
    """

    def __init__(self, node: Node, config: Config, asker: Host, quiet: Host) -> None:
        self._node = node
        self._config = config
        self._asker = asker
        self._quiet = quiet
        self._servers: list[Server] = []
        self._visited = trio.Event()
        self._counted = trio.Event()
        self._failed: set[trio.Event] = set()
        self._calls: trio.Nursery
        self._patience = config.wait * VISIT
        named = [split_address(text) for text in config.relays]
        self._named = {
            peer_id: [at for at, who in named if who == peer_id] for _, peer_id in named if peer_id
        }
        interfaces = (address.ip for address in interface_addresses())
        self.facts = Facts(
            own=tuple(ip for ip in interfaces if not (ip.is_loopback or ip.is_link_local)),
            ways=config.ways,
            finds_locally=config.mdns and config.ways != "relayed",
            maps_ports=config.portmap and config.ways != "relayed",
            relays={peer_id: Relay(peer_id) for peer_id in self._named},
        )

    async def run(self, emit: Emit, deadline: float) -> Checked:
        """Measure and tell; return the last word. deadline: on trio's clock."""
        async with trio.open_nursery() as nursery:
            self._calls = nursery

            def begin(work: Callable[[], Awaitable[None]]) -> trio.Event:
                done = trio.Event()
                nursery.start_soon(self._until, deadline, work, done)
                return done

            visited, filtered, mapped = begin(self._visit_all), begin(self._filter), begin(self._map)
            datagrams, dht = begin(self._send_datagrams), begin(self._count_dht)
            relays = {peer_id: begin(partial(self._try, peer_id)) for peer_id in self._named}
            if not relays:
                relays[""] = begin(self._find_relays)
            steps: list[tuple[trio.Event, Judge]] = [
                (visited, judgements.mapping),
                (filtered, judgements.filtering),
                (datagrams, judgements.datagrams),
                (visited, judgements.ipv6),
                (mapped, judgements.hairpin),
                (mapped, judgements.port_mapping),
                (dht, judgements.dht),
                *((done, judgements.relay_of(peer_id)) for peer_id, done in relays.items()),
            ]
            emit(judgements.addresses(self.facts))
            for done, judge in steps:
                await done.wait()
                checked = judge(self.facts)
                emit(judgements.failed(checked) if done in self._failed else checked)
            last = outlook(self.facts, is_partial=bool(self._failed - {datagrams}))
            emit(last)
            nursery.cancel_scope.cancel()
        return last

    async def _until(self, deadline: float, work: Callable[[], Awaitable[None]], done: trio.Event) -> None:
        with trio.move_on_at(deadline):
            if not await contained(work):
                self._failed.add(done)
        done.set()

    # -- by the peers that were named -----------------------------------------------------------------------------

    async def _visit_all(self) -> None:
        try:
            if self._config.ways != "relayed":
                async with trio.open_nursery() as nursery:
                    self._call(named_servers(self._config), nursery)
                    with trio.move_on_after(self._patience):
                        self._call(await resolved_servers(self._config), nursery)
        finally:
            self._visited.set()

    def _call(self, servers: list[Server], nursery: trio.Nursery) -> None:
        known = {server.peer_id for server in self._servers}
        for server in servers:
            if server.peer_id not in known:
                self._servers.append(server)
                self.facts.named += 1
                nursery.start_soon(self._visit, server)

    async def _visit(self, server: Server) -> None:
        self.facts.sightings += await visit(self._asker, server, self._patience)
        self.facts.has_ip6_peers |= server.has_ip6
        self.facts.by_ip6 |= server.sees_the_world(6)
        self.facts.reached += bool(server.connections)

    def _callers(self, version: int) -> list[Server]:
        return [it for it in self._servers if it.calls_back and it.sees_the_world(version)]

    async def _filter(self) -> None:
        """Find out who comes in, and whether this machine itself does where everybody does."""
        await self._visited.wait()
        version = 4 if self._callers(4) else 6
        called = Called(self._quiet, self._calls, self._patience)
        comers = await who_comes_in(called, self._callers(version), version)
        self.facts.strangers, self.facts.acquaintances = comers.strangers, comers.acquaintances
        if comers.strangers and mapping(self.facts) is not Mapping.NONE:
            self.facts.hairpin = await reaches(self._node.host, self._quiet.peer_id, comers.place)

    async def _map(self) -> None:
        """Wait for the router's answer, and have its mapping tried from outside and from inside."""
        if not self.facts.maps_ports:
            return
        try:
            await self._node.reach.asked()
        finally:
            self.facts.mappings = self._node.reach.mappings
        if (place := self.facts.mapped) is None:
            return
        await self._visited.wait()
        host = self._node.host
        called = Called(host, self._calls, self._patience)
        for server in self._callers(4)[:1]:
            with suppress(RequestError):
                async with host.visit(server.peer_id, server.of_version(4), self._patience) as connection:
                    self.facts.mapping_works = await called.back(connection, place)
        if self.facts.hairpin is None and self.facts.mapping_works:
            self.facts.hairpin = await reaches(self._asker, host.peer_id, place)

    async def _send_datagrams(self) -> None:
        """Call the servers over QUIC; one that answers is enough."""
        if self._config.transport == "tcp" or self._config.ways == "relayed" or why_not() is not None:
            off = "QUIC is off" if why_not() is None else f"no QUIC here: {why_not()}"
            self.facts.datagrams = Datagrams(off)
            return
        await self._visited.wait()
        able = [server for server in self._servers if server.by_udp]
        self.facts.datagrams = Datagrams(asked=len(able))
        listen = _any_port(self._config, "quic")
        async with open_host(Identity.ephemeral(), listen, "quic") as host, trio.open_nursery() as nursery:

            async def call(server: Server) -> None:
                places = [place for place in server.by_udp if place not in server.silent]
                try:
                    connection = await host.dial(server.peer_id, places, self._patience)
                    self.facts.datagrams = Datagrams(asked=len(able), round_trip=await connection.ping())
                except (NotFound, Unavailable):
                    return
                nursery.cancel_scope.cancel()

            for server in able:
                nursery.start_soon(call, server)

    # -- by the node ----------------------------------------------------------------------------------------------

    async def _count_dht(self) -> None:
        """Count the nodes that have answered, once there are no more for a while."""
        try:
            for source in self._node.sources:
                if isinstance(source, Dht):
                    await self._settle(source)
        finally:
            self._counted.set()

    async def _settle(self, dht: Dht) -> None:
        self.facts.is_dht_server = dht.is_server
        since = math.inf
        while trio.current_time() < since + DHT_SETTLES:
            if dht.size != self.facts.dht_nodes:
                self.facts.dht_nodes = dht.size
                since = trio.current_time() if dht.size else math.inf
            await trio.sleep(_LOOK)

    async def _try(self, peer_id: str) -> None:
        relay, places = self.facts.relays[peer_id], self._named[peer_id]
        self.facts.relays[peer_id] = await try_relay(self._node.host, relay, places)

    async def _find_relays(self) -> None:
        """Try the nearest relays among the peers that the node has met, where it looks for any."""
        await self._counted.wait()

        async def attempt(peer_id: str, places: tuple[str, ...]) -> None:
            relay = await try_relay(self._node.host, Relay(peer_id, is_named=False), places)
            self.facts.relays[peer_id] = relay

        async with trio.open_nursery() as nursery:
            for peer_id, places in self._node.host.reservations.found[:MAX_FOUND]:
                nursery.start_soon(attempt, peer_id, places)
