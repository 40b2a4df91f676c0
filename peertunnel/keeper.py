"""Keeps ways to a provider: found, bettered, watched, and found again when they are lost.

1. The first connection that proves itself carries tunnels at once, be it through a relay.
2. Whatever other connection to the same provider stands later, punched, dialled by it or by us, joins when it is proven.
3. While only a relay leads there, its direct addresses are tried, too; while the relay cuts circuits at a limit, a new
   one is ready before the old one is used up.
4. While tunnels are opened, the provider is pinged. If it is silent, it is sought again while the connection may recover.
5. Where UDP is slowed down, TCP is preferred (`throttle`).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import trio

from peertunnel.boundary import contained, note_failure
from peertunnel.errors import AnotherKey, NotFound, Refused, StoreError
from peertunnel.events import Emit
from peertunnel.node import DIAL_TIMEOUT, GO_TUNNEL, TUNNEL, Node
from peertunnel.paths import Paths
from peertunnel.protocols.service import Service
from peertunnel.protocols.yamux import MAX_STREAMS
from peertunnel.streams import Unavailable
from peertunnel.throttle import Throttle
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import request

DIRECT_PAUSES = (0.0, 60.0, 300.0, 900.0)  # seconds before a provider's direct addresses are tried again
RENEWAL = 20.0  # seconds before the end of a circuit at which the next one is opened
SILENCE = 2.0  # seconds for the provider to answer a ping: a round trip and two retransmissions
CHECK_INTERVAL = 1.0  # seconds from a check to the next
FAILURE_PAUSE = 5.0  # seconds until the provider is sought again after something that nobody foresaw
_LOOK = 0.5  # seconds between looks at what is left of a circuit
_LAST_RENEWAL_PAUSE = 5.0  # seconds in the end until the next, where new circuits are refused, or as short


class Keeper:
    """The consumer's ways to a service.

    Args:
        node: who looks.
        service: what to look for.
        emit: takes a PathChanged whenever the best way is another one, or lost.

    Attributes:
        refusal: why a peer that was found since the last connection is not the provider; another key before all else.
    """

    def __init__(self, node: Node, service: Service, emit: Emit) -> None:
        self._node = node
        self._service = service
        self._emit = emit
        self._throttle = Throttle(node, emit)
        self._paths: Paths | None = None
        self._agent: str | None = None  # None until the peer has said what it is
        self._asked = trio.Event()
        self._found = trio.Event()
        self._wanted = trio.Event()
        self._protocols: frozenset[str] = frozenset()
        self.refusal: Refused | None = None

    async def run(self) -> None:
        """Find the provider, and again after every loss, until cancelled.

        Raises:
            StoreError: as `Node.meet` does.
        """
        while True:
            try:
                await self._keep()
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  a task boundary: peers drive what happens
                note_failure(self._keep, error)
                await trio.sleep(FAILURE_PAUSE)

    async def _keep(self) -> None:
        """Find the provider, and keep ways to it until it is lost."""
        self.refusal = None
        connection = await self._node.meet(self._service, self._emit, self._note_refusal)
        self._agent, self._asked = None, trio.Event()
        paths = self._paths = Paths(str(connection.peer_id), self._emit)
        _add(paths, connection)
        self._found.set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(contained, self._look_at, connection)
                nursery.start_soon(self._join, paths, str(connection.peer_id))
                nursery.start_soon(self._try_directly, paths)
                nursery.start_soon(self._renew, paths)
                nursery.start_soon(self._check, paths)
                nursery.start_soon(paths.retire)
                nursery.start_soon(self._throttle.watch, paths)
                await paths.follow()
                nursery.cancel_scope.cancel()
        finally:
            self._found = trio.Event()
            paths.tell()  # whoever waits for a change waits for the next provider now
            self._asked.set()

    def _note_refusal(self, refusal: Refused) -> None:
        if not isinstance(self.refusal, AnotherKey):
            self.refusal = refusal

    async def _look_at(self, connection: MuxedConnection) -> None:
        """Learn what is at the other end."""
        try:
            answer = await request(connection)
            self._agent, self._protocols = answer.agent, answer.protocols
            if self.is_ours:
                connection.bears(MAX_STREAMS)
        finally:
            self._asked.set()  # or tunnels would wait for the answer for ever

    # -- more ways ------------------------------------------------------------------------------------------------

    async def _join(self, paths: Paths, peer_id: str) -> None:
        """Take in what other connections to the provider come to stand, until cancelled."""
        host = self._node.host
        async with host.newcomers(peer_id) as newcomers, trio.open_nursery() as nursery:
            for connection in host.connections(peer_id):
                if connection not in paths and not connection.event_unavailable.is_set():
                    nursery.start_soon(contained, self._prove, paths, connection)
            async for connection in newcomers:
                if connection not in paths:
                    nursery.start_soon(contained, self._prove, paths, connection)

    async def _prove(self, paths: Paths, connection: MuxedConnection) -> None:
        try:
            await self._node.prove(self._service, connection)
        except Exception as error:
            if connection.way.kind == "relayed":
                await connection.close()  # nobody else needs it
            if not isinstance(error, NotFound | Refused):
                raise
            return  # it was lost, or the provider has changed its mind; what stands goes on
        _add(paths, connection)

    async def _try_directly(self, paths: Paths) -> None:
        """While a relay is the best way, try to do without, until cancelled."""
        pauses = list(DIRECT_PAUSES)
        while True:
            with trio.move_on_after(pauses.pop(0) if len(pauses) > 1 else pauses[0]):
                await self._node.host.network_changed.wait()
                pauses = list(DIRECT_PAUSES)
            best = paths.best
            if best is None or best.way.kind != "relayed" or not self._node.may_go_directly:
                continue
            # _join hears of what comes of it; where nothing does, a hole may be punched, or the relay has to do.
            await contained(self._node.dial_directly, best)

    async def _renew(self, paths: Paths) -> None:
        """Have another circuit ready before a relay cuts the one in use, until cancelled."""
        pause = _LOOK
        renewed: MuxedConnection | None = None
        while True:
            await trio.sleep(pause)
            if (best := paths.best) is None or not _is_nearly_over(best):
                pause = _LOOK
                continue
            new: list[MuxedConnection] = []
            await contained(self._dial_again, best, new.append)
            # A circuit that is used up in no time is renewed as quickly, but not one whose successors are refused or as short.
            is_in_vain = best is renewed or any(map(_is_nearly_over, new))
            pause = min(2 * pause, _LAST_RENEWAL_PAUSE) if is_in_vain else _LOOK
            renewed = best

    async def _dial_again(self, circuit: MuxedConnection, take: Callable[[MuxedConnection], None]) -> None:
        address = f"{circuit.get_transport_addresses()[0]}/p2p/{circuit.peer_id}"
        with suppress(NotFound):  # _join hears of it
            take(await self._node.host.dial(str(circuit.peer_id), [address], DIAL_TIMEOUT))

    async def _check(self, paths: Paths) -> None:
        """See to it that a provider which has fallen silent is sought, until cancelled."""
        while True:
            self._wanted = trio.Event()
            await self._wanted.wait()
            await contained(self._check_once, paths)
            await trio.sleep(CHECK_INTERVAL)

    async def _check_once(self, paths: Paths) -> None:
        silent = await _silent(paths.all)
        if paths.best not in silent:
            return
        paths.doubt(silent)
        try:
            if paths.best in silent:
                await self._seek(paths, silent)
        finally:
            paths.doubt(())

    async def _seek(self, paths: Paths, silent: list[MuxedConnection]) -> None:
        """Find another way to a silent provider, unless it speaks again, or is lost, before."""
        peer_id = str(silent[0].peer_id)
        async with trio.open_nursery() as nursery:

            async def hear(connection: MuxedConnection) -> None:
                if await _answers(connection):
                    nursery.cancel_scope.cancel()

            for connection in silent:
                nursery.start_soon(hear, connection)
            nursery.start_soon(self._node.host.check, peer_id)  # the way to our relays may be dead, too
            wanted = replace(self._service, peer_id=peer_id)
            _add(paths, await self._node.meet(wanted, self._emit, self._note_refusal))
            for connection in silent:
                await connection.event_closed.wait()
            nursery.cancel_scope.cancel()

    # -- for tunnels ----------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether a connection to a provider stands."""
        return self._paths is not None and self._paths.best is not None

    async def connection(self) -> MuxedConnection:
        """Return a connection that takes new streams, as soon as there is one; waits for ever."""
        while True:
            found = self._found
            await found.wait()
            if found is not self._found:
                continue  # it was lost as we came: its paths tell of no change any more
            assert self._paths is not None
            best, changed = self._paths.best, self._paths.changed
            self._wanted.set()
            if best is not None and self._node.may_carry(best):
                if self.is_ours:
                    best.bears(MAX_STREAMS)
                return best
            await changed.wait()

    async def protocol(self) -> str:
        """Return the protocol to open tunnels with: the Go PeerTunnel knows ours under its own name only."""
        if not self._service.is_public:
            return TUNNEL
        await self._asked.wait()
        return GO_TUNNEL if GO_TUNNEL in self._protocols and TUNNEL not in self._protocols else TUNNEL

    def ready(self) -> MuxedConnection | None:
        """Return a connection that takes a stream of TUNNEL without any wait, and drops none; None if there is none."""
        best = self._paths.best if self._paths is not None else None
        if best is None or not self.is_ours or TUNNEL not in self._protocols:
            return None
        best.bears(MAX_STREAMS)
        self._wanted.set()
        return best if best.opens_at_once() and self._node.may_carry(best) else None

    async def drops_streams(self) -> bool:
        """Return whether the provider may drop streams unseen in a burst, as rust-libp2p's streams do.

        Ours never does, and a stream that it resets must not be opened again: its target refused.
        """
        await self._asked.wait()
        return not self.is_ours

    @property
    def is_ours(self) -> bool:
        """Whether the provider is known to be a peertunnel."""
        return (self._agent or "").startswith("peertunnel/")


def _add(paths: Paths, connection: MuxedConnection) -> None:
    """Have a connection carry tunnels, until its provider tells that it takes no more of them."""
    connection.acquaintance.relied_on = frozenset({TUNNEL, GO_TUNNEL})
    paths.add(connection)


async def _answers(connection: MuxedConnection) -> bool:
    """Wait for a sign of life, True, or for the end of the connection."""
    try:
        await connection.ping()
    except Unavailable:
        return False
    return True


def _is_nearly_over(circuit: MuxedConnection) -> bool:
    limit = circuit.way.limit
    return limit is not None and limit.is_nearly_over(trio.current_time(), RENEWAL)


async def _silent(connections: list[MuxedConnection]) -> list[MuxedConnection]:
    """Return those of the connections whose peer does not answer in time."""
    silent = list(connections)

    async def ping(connection: MuxedConnection) -> None:
        await _answers(connection)
        silent.remove(connection)

    with trio.move_on_after(SILENCE):
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(ping, connection)
    return silent
