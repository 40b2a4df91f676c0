"""The provider's story: announce a service, and dial its target for every stream that a consumer may open."""

import trio

from peertunnel import sockets
from peertunnel.access import Access
from peertunnel.boundary import contained, repeated
from peertunnel.bridge import Tunnels
from peertunnel.endpoints import Endpoint
from peertunnel.errors import TargetError
from peertunnel.events import AddressesChanged, Emit, ErrorOccurred, Ready
from peertunnel.gate import Gate
from peertunnel.node import GO_TUNNEL, TUNNEL, Node
from peertunnel.paths import Paths
from peertunnel.protocols.service import Service
from peertunnel.streams import Stream
from peertunnel.transport import perf
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

ADDRESS_INTERVAL = 0.5  # seconds between looks at our addresses
TARGET_TIMEOUT = 10.0  # seconds for the target to answer; a local one does at once, or never
# Seconds for a consumer to hear that no more tunnels are taken: a round trip and two retransmissions.
NOTICE = 3.0
LOOK = 0.1  # seconds between looks at what still runs on a connection


async def expose(
    node: Node,
    service: Service,
    target: Endpoint,
    emit: Emit,
    *,
    access: Access,
    grace: float,
    stop: trio.Event,
) -> None:
    """Provide a service until `stop` is set, and let running tunnels finish then.

    Args:
        target: what to dial for every tunnel.
        emit: takes the events.
        access: who may come in.
        grace: seconds that running tunnels get once `stop` is set.
    """
    node.introduce(service)
    provider = _Provider(node, service, target, emit, access)
    try:
        async with trio.open_nursery() as nursery:
            meeting = trio.CancelScope()

            async def meet() -> None:
                with meeting:
                    await provider.meet()

            provider.open(nursery)
            nursery.start_soon(meet)
            emit(Ready(node.peer_id, node.addresses))
            nursery.start_soon(_tell_addresses, node, emit)
            await stop.wait()
            meeting.cancel()
            provider.close()
            with trio.move_on_after(grace):
                nursery.start_soon(provider.leave)
                await provider.tunnels.wait_all_closed()
            nursery.cancel_scope.cancel()
    finally:
        provider.tunnels.abort()


async def _tell_addresses(node: Node, emit: Emit) -> None:
    """Tell of other addresses whenever there are, until cancelled."""
    told = node.addresses

    async def look() -> None:
        nonlocal told
        if (addresses := node.addresses) != told:
            told = addresses
            emit(AddressesChanged(addresses))

    await repeated(ADDRESS_INTERVAL, look)


class _Provider:
    def __init__(self, node: Node, service: Service, target: Endpoint, emit: Emit, access: Access) -> None:
        self.tunnels = Tunnels(emit, node.host.reactor.afterwards)
        self._node = node
        self._service = service
        self._target = target
        self._target_name = str(target)
        self._emit = emit
        self._gate = Gate(node, service, access, emit, self._note)
        self._consumers: dict[str, Paths] = {}
        self._nursery: trio.Nursery
        self._protocols = (TUNNEL, GO_TUNNEL) if service.is_public else (TUNNEL,)

    def open(self, nursery: trio.Nursery) -> None:
        """Take streams from now on, in a nursery."""
        self._nursery = nursery

        def accept(stream: MuxedStream) -> None:
            if not self._gate.admits(stream.muxed_conn):
                stream.abort()
                return
            if (sock := sockets.dial_at_once(self._target)) is not None:
                self.tunnels.start(stream, sock, self._target_name, is_silent=True)
            else:
                nursery.start_soon(contained, self._provide, stream)
                self._node.host.reactor.yield_soon()
            self._note(stream.muxed_conn)

        for protocol in self._protocols:
            self._node.host.serve(protocol, accept)
        self._node.host.serve(perf.PROTOCOL, perf.Perf(self._gate.admits, nursery).accept)
        nursery.start_soon(self._gate.run)
        nursery.start_soon(self.tunnels.measure)

    def close(self) -> None:
        """Take no more connections, and no more proofs on those that stand."""
        self._node.host.withdrawn = frozenset(self._protocols)
        self._node.host.stop_accepting()
        self._node.host.stop_serving(perf.PROTOCOL)
        self._gate.close()

    async def leave(self) -> None:
        """Have consumers look for another provider, and close each one's connection once no tunnel is on it.

        What they open before they have heard of it is taken: nobody but us can carry it.
        """
        host = self._node.host
        with trio.move_on_after(NOTICE):
            async with trio.open_nursery() as nursery:
                for connection in host.all_connections():
                    nursery.start_soon(contained, host.push, connection)
        for protocol in self._protocols:
            host.stop_serving(protocol)
        await repeated(LOOK, self._close_unused)

    async def _close_unused(self) -> None:
        for connection in self._node.host.all_connections():
            is_consumers = self._gate.admits(connection) and (
                connection.is_proven or not connection.is_initiator
            )
            is_closing = connection.event_unavailable.is_set()
            if is_consumers and not (is_closing or connection.is_used):
                self._node.host.start_soon(connection.close)

    async def meet(self) -> None:
        """Let consumers find us, and look for those that seek us, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._node.reach.be_called)
            nursery.start_soon(self._node.announce, self._service)
            nursery.start_soon(self._gate.reach_out)

    async def _provide(self, stream: Stream) -> None:
        """Dial the target for one stream, and join the two."""
        try:
            sock = await sockets.dial(self._target, TARGET_TIMEOUT)
        except TargetError as error:
            stream.abort()
            self._emit(ErrorOccurred.of(error))
            return
        except BaseException:
            stream.abort()  # or the other side would wait for ever
            raise
        self.tunnels.start(stream, sock, self._target_name, is_silent=True)

    def _note(self, connection: MuxedConnection) -> None:
        """Take in one more way to a consumer."""
        peer_id = str(connection.peer_id)
        if (paths := self._consumers.get(peer_id)) is None:
            paths = self._consumers[peer_id] = Paths(peer_id, self._emit)
            self._nursery.start_soon(contained, self._follow, peer_id, paths)
        paths.add(connection)

    async def _follow(self, peer_id: str, paths: Paths) -> None:
        """Tell of a consumer's path, and of its end."""
        try:
            await paths.follow()
        finally:
            del self._consumers[peer_id]
