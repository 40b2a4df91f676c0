"""The provider's story: announce a service, and dial its target for every stream that a consumer opens."""

import trio

from peertunnel import sockets
from peertunnel.bridge import Tunnels
from peertunnel.endpoints import Endpoint
from peertunnel.errors import TargetError
from peertunnel.events import Emit, ErrorOccurred, PathChanged, Ready
from peertunnel.node import TUNNEL, Node, tell_path
from peertunnel.protocols.service import Service
from peertunnel.streams import Stream
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.yamux import MuxedConnection

TARGET_TIMEOUT = 10.0  # seconds for the target to answer; a local one does at once, or never


async def expose(
    node: Node,
    service: Service,
    target: Endpoint,
    emit: Emit,
    *,
    grace: float,
    stop: trio.Event,
) -> None:
    """Provide a service until `stop` is set, and let running tunnels finish then.

    Args:
        target: what to dial for every tunnel.
        emit: takes the events.
        grace: seconds that running tunnels get once `stop` is set.
    """
    tunnels = Tunnels(emit)
    async with trio.open_nursery() as nursery:
        announcing = trio.CancelScope()

        async def announce() -> None:
            with announcing:
                await node.announce(service)

        consumers: set[MuxedConnection] = set()

        def accept(stream: MuxedStream) -> None:
            nursery.start_soon(_provide, tunnels, stream, target, emit)
            if stream.muxed_conn not in consumers:
                consumers.add(stream.muxed_conn)
                nursery.start_soon(_watch, stream.muxed_conn, consumers, emit)

        node.host.serve(TUNNEL, accept)
        nursery.start_soon(announce)
        nursery.start_soon(tunnels.measure)
        emit(Ready(node.peer_id, node.addresses))
        await stop.wait()
        node.host.stop_serving(TUNNEL)
        announcing.cancel()
        with trio.move_on_after(grace):
            await tunnels.wait_all_closed()
        nursery.cancel_scope.cancel()


async def _provide(tunnels: Tunnels, stream: Stream, target: Endpoint, emit: Emit) -> None:
    """Dial the target for one stream, and join the two."""
    try:
        sock = await sockets.dial(target, TARGET_TIMEOUT)
    except TargetError as error:
        stream.abort()
        emit(ErrorOccurred.of(error))
        return
    number = tunnels.number()
    tunnels.opened(number, stream.peer, str(target))
    tunnels.closed(number, await tunnels.carry(number, stream, sock))


async def _watch(connection: MuxedConnection, consumers: set[MuxedConnection], emit: Emit) -> None:
    """Tell of a consumer's path, and of its end."""
    await tell_path(connection, emit)
    await connection.event_closed.wait()
    consumers.discard(connection)
    emit(PathChanged(str(connection.peer_id), "none", None))
