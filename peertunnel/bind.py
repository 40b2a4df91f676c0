"""The consumer's story: for every connection to a local endpoint a stream to the provider."""

import logging
import random
import select
import socket

import trio

from peertunnel import sockets
from peertunnel.boundary import repeated
from peertunnel.bridge import Tunnels
from peertunnel.errors import NotFound, PeerTunnelError, Refused, TunnelAborted
from peertunnel.events import Emit, ErrorOccurred, Warned
from peertunnel.keeper import Keeper
from peertunnel.node import TUNNEL, Node, no_provider
from peertunnel.protocols.service import Service
from peertunnel.stdio import stdio
from peertunnel.streams import End, Outcome, Stream, Unavailable
from peertunnel.transport.acceptor import serve

REOPEN_PAUSES = (0.0, 0.01, 0.03, 0.1, 0.3)  # seconds before a stream that was dropped unseen is opened again
LOOK = 1.0  # seconds between looks at whether clients that wait are still there
_log = logging.getLogger(__name__)


async def bind(
    node: Node,
    service: Service,
    listeners: list[socket.socket] | None,
    emit: Emit,
    *,
    wait: float,
    grace: float,
    stop: trio.Event,
) -> None:
    """Reach a service through local listeners until `stop` is set, and let running tunnels finish then.

    Args:
        listeners: of `sockets.listen`; None carries one tunnel on standard input and output, and returns when it ends.
        emit: takes the events.
        wait: seconds that a new connection waits for the provider.
        grace: seconds that running tunnels get once `stop` is set.

    Raises:
        NotFound: with stdio, no provider in time.
        Refused: with stdio, the provider does not serve tunnels, or did not prove itself.
        TunnelAborted: with stdio, the tunnel was cut before it had ended, or stdout failed.
    """
    node.introduce(service)
    consumer = _Consumer(node, service, emit, wait)
    if listeners is None:
        await consumer.carry_stdio(stop, grace)
    else:
        await consumer.serve(listeners, stop, grace)


class _Gone(Exception):
    """A client did not wait for the provider."""


class _Consumer:
    def __init__(self, node: Node, service: Service, emit: Emit, wait: float) -> None:
        self._reactor = node.host.reactor
        self._service = service
        self._emit = emit
        self._wait = wait
        self._keeper = Keeper(node, service, emit)
        self._tunnels = Tunnels(emit, self._reactor.afterwards)
        self._has_suspected = False
        self._waiting: dict[socket.socket, trio.CancelScope] = {}

    async def serve(self, listeners: list[socket.socket], stop: trio.Event, grace: float) -> None:
        try:
            async with trio.open_nursery() as nursery:

                def carry(sock: socket.socket, remote: str) -> None:
                    if not self._carry_at_once(sock, remote):
                        nursery.start_soon(self._carry_and_tell, sock, remote)
                        self._reactor.yield_soon()

                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self._tunnels.measure)
                nursery.start_soon(repeated, LOOK, self._let_go)
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(serve, self._reactor, listeners, carry, self._warn)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                sockets.close_listeners(listeners)
                with trio.move_on_after(grace):
                    await self._tunnels.wait_all_closed()
                nursery.cancel_scope.cancel()
        finally:
            self._tunnels.abort()

    def _carry_at_once(self, sock: socket.socket, remote: str) -> bool:
        """Carry one local connection by callbacks alone; False where there is something to wait for."""
        if (connection := self._keeper.ready()) is None:
            return False
        try:
            stream = connection.open_tunnel_at_once(TUNNEL)
        except Unavailable:
            return False  # the connection was lost just now
        self._tunnels.start(stream, sock, remote, self._ended)
        return True

    async def _carry_and_tell(self, sock: socket.socket, remote: str) -> None:
        try:
            await self._carry(sock, remote)
        except _Gone:
            pass
        except PeerTunnelError as error:
            self._emit(ErrorOccurred.of(error))
        except Exception:  # noqa: BLE001  a task boundary: others have tunnels, too
            _log.exception("a tunnel for %s failed", remote)
            sockets.end(sock, in_order=False)

    def _warn(self, why: str) -> None:
        self._emit(Warned(why))

    async def _let_go(self) -> None:
        """Wait no longer for the provider where the client has gone."""
        await trio.lowlevel.checkpoint()
        for sock, waiting in list(self._waiting.items()):
            if _has_gone(sock):
                waiting.cancel()

    async def carry_stdio(self, stop: trio.Event, grace: float) -> None:
        sock = stdio()
        outcome: Outcome | None = None
        failure: NotFound | Refused | None = None
        async with trio.open_nursery() as nursery:

            async def stop_in_time() -> None:
                await stop.wait()
                if self._tunnels.are_open:
                    await trio.sleep(grace)
                nursery.cancel_scope.cancel()

            async def stop_at_failure() -> None:
                await sock.failed()  # of which the tunnel would learn only by more bytes for it
                nursery.cancel_scope.cancel()

            nursery.start_soon(self._keeper.run)
            nursery.start_soon(stop_in_time)
            nursery.start_soon(stop_at_failure)
            try:
                outcome = await self._carry(sock, "stdio")
            except (NotFound, Refused) as error:  # not to leave as a group
                failure = error
            nursery.cancel_scope.cancel()
        sock.check()
        if failure is not None:
            raise failure
        if outcome is not None and outcome.end is End.NOT_SPOKEN:
            raise Refused
        if outcome is None or outcome.end is not End.FINISHED:
            why = End.LOCAL_RESET if outcome is None else outcome.end
            is_untouched = outcome is not None and outcome.was_turned_away
            hint = "Its target may have refused: see what the other side says." if is_untouched else None
            raise TunnelAborted(f"The tunnel was cut before it had ended: {why.value}.", hint=hint)
        await sock.flushed()

    def _in_vain(self) -> NotFound | Refused:
        if self._keeper.is_connected:
            return Refused(
                f"The other side did not take a tunnel within {self._wait:g} s.",
                hint="It may have too many of them: end some, or wait longer with --wait.",
            )
        return no_provider(self._service, self._wait, self._keeper.refusal)

    async def _carry(self, sock: socket.socket, remote: str) -> Outcome:
        """Carry one local connection; raises NotFound or Refused, and aborts it, if no stream opens in time."""
        number = self._tunnels.number()
        outcome: Outcome | None = None
        replay: bytes | None = b""
        for pause in REOPEN_PAUSES:
            try:
                if pause:
                    await trio.sleep(pause * random.uniform(0.5, 4))  # or a burst would come again as a burst
                stream = await self._open_stream(sock)
            except BaseException:
                if outcome is not None:  # it has been told that the tunnel was opened
                    self._tunnels.closed(number, outcome)
                raise
            if outcome is None:
                self._tunnels.opened(number, stream.peer, remote)
            keep = None if self._keeper.is_ours else replay
            outcome = await self._tunnels.carry(number, stream, sock, keep)
            replay = outcome.replay
            if replay is None or not await self._keeper.drops_streams():
                break
        assert outcome is not None
        sockets.abort(sock)  # where the socket was kept for another try
        self._tunnels.closed(number, outcome)
        self._ended(outcome)
        return outcome

    def _ended(self, outcome: Outcome) -> None:
        """Tell once why a provider may reset tunnels of somebody who gave no id."""
        if outcome.was_turned_away and self._service.root is None and not self._has_suspected:
            self._has_suspected = True
            self._emit(
                Warned(
                    "The other side reset the tunnel at once: it may want an id or a whole link, or its target refused."
                )
            )

    async def _open_stream(self, sock: socket.socket) -> Stream:
        """Open a stream as soon as the provider is there; raises NotFound or Refused, or _Gone if the client is by then."""
        try:
            with trio.fail_after(self._wait), trio.CancelScope() as waiting:
                self._waiting[sock] = waiting
                while True:
                    try:
                        connection = await self._keeper.connection()
                        return await connection.open_tunnel(await self._keeper.protocol())
                    except Unavailable:
                        await trio.lowlevel.checkpoint()  # the connection was lost just now
        except trio.TooSlowError:
            sockets.abort(sock)
            raise self._in_vain() from None
        finally:
            del self._waiting[sock]
        sockets.abort(sock)
        raise _Gone


def _has_gone(sock: socket.socket) -> bool:
    """Return whether a client expects nothing more: it has reset its connection, or hung up and has sent nothing before.

    Over TCP a client that has closed in good order looks as if it had ended its direction, and may expect the answer.
    """
    poll = select.poll()
    poll.register(sock, 0)
    state = poll.poll(0)
    if not state or state[0][1] & select.POLLERR:
        return bool(state)
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
