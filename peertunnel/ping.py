"""The story of `pt ping`: find a peer, and measure the round trip on whichever path is the best by then."""

import trio

from peertunnel.events import Emit, PathChanged, Pong
from peertunnel.keeper import Keeper
from peertunnel.node import Node, no_provider
from peertunnel.paths import left
from peertunnel.protocols.service import Service
from peertunnel.streams import Unavailable

INTERVAL = 1.0  # seconds between pings, as in ping(8)


async def ping(node: Node, service: Service, count: int, within: float, emit: Emit) -> None:
    """Measure the round trip to a provider of a service.

    Args:
        count: how many times.
        within: seconds for finding it, and again after each loss.
        emit: takes the Pongs, which tell the path, too, and warnings.

    Raises:
        NotFound: no provider in time.
        Refused: only peers that did not prove themselves, or that refused us.
    """
    keeper = Keeper(node, service, lambda event: None if isinstance(event, PathChanged) else emit(event))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        for turn in range(count):
            if turn:
                await trio.sleep(INTERVAL)
            emit(await _pong(keeper, service, within))
        nursery.cancel_scope.cancel()


async def _pong(keeper: Keeper, service: Service, within: float) -> Pong:
    with trio.move_on_after(within):
        while True:
            connection = await keeper.connection()
            try:
                round_trip = await connection.ping()
            except Unavailable:
                continue  # it was lost just now
            address = str(connection.get_transport_addresses()[0])
            peer_id, kind = str(connection.peer_id), connection.way.kind
            return Pong(peer_id, kind, address, round_trip * 1000, *left(connection))
    raise no_provider(service, within, keeper.refusal)
