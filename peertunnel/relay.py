"""The story of `pt relay`: a node at a public address, by which the others of a team meet.

It is a rendezvous point, a DHT server and a circuit relay, and answers identify and ping. Circuits of strangers have
limits; what they carry is sealed between their ends.
"""

from dataclasses import dataclass

import trio

from peertunnel import sockets, systemd
from peertunnel.access import AllowedPeers
from peertunnel.config import Transports
from peertunnel.discovery import sustain
from peertunnel.discovery.dht import Dht
from peertunnel.discovery.mdns_peer import ip_of
from peertunnel.discovery.rendezvous_server import RendezvousServer
from peertunnel.endpoints import Endpoint
from peertunnel.errors import LocalPortError
from peertunnel.events import Emit, Listening, Offered, Ready
from peertunnel.host import Host, HostError, open_host
from peertunnel.identity import Identity
from peertunnel.metrics import Metrics
from peertunnel.transport.autonat_server import AutonatServer
from peertunnel.transport.relay_server import RelayServer
from peertunnel.trust import Trust


@dataclass(frozen=True, slots=True)
class CircuitOptions:
    """Whose circuits have no limits.

    Attributes:
        peers: a list of peers.
        root: the root secret of a service whose ends have none either, once they prove it; None for no such service.
    """

    peers: AllowedPeers
    root: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """How to run a relay.

    Attributes:
        identity: who we are; it stays the same, since it is part of what the others were given.
        listen: multiaddrs to listen on.
        dht: whether to serve a DHT.
        bootstrap: multiaddrs of its nodes to join; with none we begin one of our own.
        dht_prefix: of its protocol.
        metrics: where to serve numbers for Prometheus, None for nowhere.
        circuits: how to relay, None for not at all.
        transport: what to be reached over.
    """

    identity: Identity
    listen: tuple[str, ...]
    dht: bool = True
    bootstrap: tuple[str, ...] = ()
    dht_prefix: str = "/ipfs"
    metrics: Endpoint | None = None
    circuits: CircuitOptions | None = None
    transport: Transports = "auto"


async def relay(options: RelayOptions, emit: Emit, *, stop: trio.Event) -> None:
    """Serve others until `stop` is set, and tell systemd of it.

    Args:
        emit: takes the events.

    Raises:
        LocalPortError: a port is taken, or an address is not this machine's.
    """
    pages = [] if options.metrics is None else await sockets.listen(options.metrics)
    try:
        async with (
            open_host(options.identity, options.listen, options.transport) as host,
            trio.open_nursery() as nursery,
        ):
            metrics = await _serve(host, options, nursery, emit)
            if pages:
                nursery.start_soon(metrics.serve, pages)
            for page in pages:
                emit(Listening(sockets.local_name(page)))
            emit(Ready(host.peer_id, host.addresses))
            if host.addresses:
                emit(Offered(best(host.addresses)))
            systemd.notify("READY=1")
            await stop.wait()
            systemd.notify("STOPPING=1")
            nursery.cancel_scope.cancel()
    except HostError as error:
        hint = "Choose another port with --port, or other addresses with --listen."
        raise LocalPortError(error.message, hint=hint) from error
    finally:
        sockets.close_listeners(pages)


async def _serve(host: Host, options: RelayOptions, nursery: trio.Nursery, emit: Emit) -> Metrics:
    """Start all that others use, and give its numbers."""
    meeting_point = RendezvousServer(host)
    await nursery.start(meeting_point.run)
    metrics = _metrics(host, meeting_point)
    autonat = AutonatServer(host)
    await nursery.start(autonat.run)
    metrics.counter(
        "autonat_requests",
        "Requests to dial back, by AutoNAT's version and what came of them.",
        ("version", "outcome"),
        lambda: autonat.answers,
    )
    if options.dht:
        dht = Dht(host, options.bootstrap, prefix=options.dht_prefix, server=True)
        nursery.start_soon(sustain, dht, emit, dht.run)
        metrics.gauge("dht_records", "Provider records held for others.", lambda: dht.records)
        metrics.gauge("dht_peers", "Nodes in the DHT's routing table.", lambda: dht.size)
    if options.circuits is not None:
        trust = Trust(host, options.circuits.peers, options.circuits.root, emit)
        circuits = RelayServer(host, trust.covers)
        await nursery.start(trust.run)
        await nursery.start(circuits.run)
        _add_circuits(metrics, circuits)
    return metrics


def best(addresses: tuple[str, ...]) -> str:
    """Give the multiaddr that most others reach: a public one, or else one of the local network."""
    return min(addresses, key=_distance)  # of equals the first: IPv4 comes before IPv6


def _distance(address: str) -> int:
    ip = ip_of(address)
    if ip is None or ip.is_global:
        return 0
    return 3 if ip.is_loopback else 2 if ip.is_link_local else 1


def _metrics(host: Host, meeting_point: RendezvousServer) -> Metrics:
    metrics, book = Metrics(), meeting_point.book
    metrics.gauge("connections", "Connections to other peers.", lambda: len(host.network.connections()))
    metrics.gauge("rendezvous_registrations", "Registrations, all peers'.", lambda: book.size)
    metrics.gauge("rendezvous_peers", "Peers that have registered.", lambda: book.peers)
    metrics.gauge("rendezvous_namespaces", "Namespaces with registrations.", lambda: book.namespaces)
    metrics.counter(
        "rendezvous_requests",
        "Requests answered, by kind and status; all but ok were refused.",
        ("request", "status"),
        lambda: meeting_point.answers,
    )
    return metrics


def _add_circuits(metrics: Metrics, circuits: RelayServer) -> None:
    book = circuits.book
    metrics.gauge("circuits", "Circuits that run, or are being opened.", lambda: book.circuits)
    metrics.gauge("circuit_reservations", "Peers that are reached by circuits.", lambda: book.reservations)
    metrics.counter("circuit_bytes", "Bytes carried, both ways.", (), lambda: {(): circuits.carried})
    metrics.counter(
        "circuit_requests",
        "Requests answered, by kind and status; all but ok were refused.",
        ("request", "status"),
        lambda: circuits.answers,
    )
