"""The provider's story: announce a service, and dial its target for every stream that a consumer opens."""

import trio

from peertunnel import sockets
from peertunnel.bridge import Tunnels
from peertunnel.endpoints import Endpoint
from peertunnel.errors import TargetError
from peertunnel.events import Emit, ErrorOccurred, Ready
from peertunnel.node import TUNNEL, Node
from peertunnel.protocols.service import Service
from peertunnel.streams import Stream

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

        node.host.serve(TUNNEL, lambda stream: nursery.start_soon(_provide, tunnels, stream, target, emit))
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
