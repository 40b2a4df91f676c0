"""The consumer's story: a local endpoint, and a stream to the provider for every connection that it accepts."""

import socket

import trio

from peertunnel import sockets
from peertunnel.bridge import Tunnels
from peertunnel.endpoints import Endpoint
from peertunnel.errors import NotFound, TunnelAborted
from peertunnel.events import Emit, ErrorOccurred, Listening
from peertunnel.keeper import Keeper
from peertunnel.node import TUNNEL, Node
from peertunnel.protocols.service import Service
from peertunnel.stdio import stdio
from peertunnel.streams import End, Outcome, Stream, Unavailable

REOPEN_PAUSES = (0.0, 0.01, 0.03, 0.1, 0.3)  # seconds before a stream that was dropped unseen is opened again


async def bind(
    node: Node,
    service: Service,
    local: Endpoint | None,
    emit: Emit,
    *,
    wait: float,
    grace: float,
    stop: trio.Event,
) -> None:
    """Reach a service through a local endpoint until `stop` is set, and let running tunnels finish then.

    Args:
        local: where to listen; None carries one tunnel on standard input and output, and returns when it ends.
        emit: takes the events.
        wait: seconds that a new connection waits for the provider.
        grace: seconds that running tunnels get once `stop` is set.

    Raises:
        LocalPortError: the endpoint cannot be listened on.
        NotFound: with stdio, no provider in time.
        TunnelAborted: with stdio, the tunnel was cut before it had ended.
    """
    consumer = _Consumer(node, service, emit, wait)
    if local is None:
        await consumer.carry_stdio(stop, grace)
    else:
        await consumer.serve(local, stop, grace)


class _Consumer:
    def __init__(self, node: Node, service: Service, emit: Emit, wait: float) -> None:
        self._service = service
        self._emit = emit
        self._wait = wait
        self._keeper = Keeper(node, service, emit)
        self._tunnels = Tunnels(emit)

    async def serve(self, local: Endpoint, stop: trio.Event, grace: float) -> None:
        listeners = await sockets.listen(local)
        accepting = trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:

                async def accept() -> None:
                    with accepting:
                        await sockets.serve(
                            listeners, lambda sock, remote: nursery.start_soon(self._carry, sock, remote)
                        )

                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self._tunnels.measure)
                nursery.start_soon(accept)
                for listener in listeners:
                    self._emit(Listening(sockets.local_name(listener)))
                await stop.wait()
                accepting.cancel()
                sockets.close_listeners(listeners)
                with trio.move_on_after(grace):
                    await self._tunnels.wait_all_closed()
                nursery.cancel_scope.cancel()
        finally:
            sockets.close_listeners(listeners)

    async def carry_stdio(self, stop: trio.Event, grace: float) -> None:
        sock = stdio()
        async with trio.open_nursery() as nursery:

            async def stop_in_time() -> None:
                await stop.wait()
                await trio.sleep(grace)
                nursery.cancel_scope.cancel()

            nursery.start_soon(self._keeper.run)
            nursery.start_soon(stop_in_time)
            outcome = await self._carry(sock, "stdio")
            nursery.cancel_scope.cancel()
        if outcome is None:
            raise self._not_found()
        if outcome.end is not End.FINISHED:
            raise TunnelAborted(f"The tunnel was cut before it had ended: {outcome.end.value}.")
        await sock.flushed()

    def _not_found(self) -> NotFound:
        return NotFound(f"Found no provider of {self._service.name} within {self._wait:g} s.")

    async def _carry(self, sock: socket.socket, remote: str) -> Outcome | None:
        """Carry one local connection; return None if no provider was found for it."""
        number = self._tunnels.number()
        replay: bytes | None = None
        for pause in REOPEN_PAUSES:
            await trio.sleep(pause)
            stream = await self._open_stream(sock)
            if stream is None:
                return None
            if replay is None:
                self._tunnels.opened(number, stream.peer, remote)
            outcome = await self._tunnels.carry(
                number, stream, sock, None if self._keeper.is_ours else replay or b""
            )
            replay = outcome.replay
            if replay is None or not await self._keeper.drops_streams():
                break
        sockets.abort(sock)  # where the socket was kept for another try
        self._tunnels.closed(number, outcome)
        return outcome

    async def _open_stream(self, sock: socket.socket) -> Stream | None:
        """Open a stream as soon as the provider is there; abort the connection and return None if it is not."""
        with trio.move_on_after(self._wait):
            while True:
                try:
                    return await (await self._keeper.connection()).open_tunnel(TUNNEL)
                except Unavailable:
                    await trio.lowlevel.checkpoint()  # the connection was lost just now
        sockets.abort(sock)
        self._emit(ErrorOccurred.of(self._not_found()))
        return None
