"""Keeps a connection to a provider: found, watched, and found again when it is lost."""

import trio

from peertunnel.events import Emit, PathChanged
from peertunnel.node import GO_TUNNEL, TUNNEL, Node, tell_path
from peertunnel.protocols.service import Service
from peertunnel.transport.identify import request
from peertunnel.transport.yamux import MuxedConnection


class Keeper:
    """The consumer's way to a service.

    Args:
        node: who looks.
        service: what to look for.
        emit: takes a PathChanged whenever a connection stands or is lost.

    Attributes:
        was_refused: a peer was found since the last connection, but the two did not prove themselves.
    """

    def __init__(self, node: Node, service: Service, emit: Emit) -> None:
        self._node = node
        self._service = service
        self._emit = emit
        self._connection: MuxedConnection | None = None
        self._agent: str | None = None  # None until the peer has said what it is
        self._asked = trio.Event()
        self._found = trio.Event()
        self._protocols: frozenset[str] = frozenset()
        self.was_refused = False

    async def run(self) -> None:
        """Find the provider, and again after every loss, until cancelled."""
        while True:
            self.was_refused = False
            connection = await self._node.meet(self._service, self._emit, self._note_refusal)
            self._connection, self._agent, self._asked = connection, None, trio.Event()
            self._found.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_at, connection)
                await connection.event_unavailable.wait()
                nursery.cancel_scope.cancel()
            self._connection = None
            self._found = trio.Event()
            self._asked.set()
            self._emit(PathChanged(str(connection.peer_id), "none", None))

    def _note_refusal(self) -> None:
        self.was_refused = True

    async def _look_at(self, connection: MuxedConnection) -> None:
        """Tell of a new connection, and learn what is at its other end."""
        await tell_path(connection, self._emit)
        answer = await request(connection)
        self._agent, self._protocols = answer.agent_version, frozenset(answer.protocols)
        self._asked.set()

    async def connection(self) -> MuxedConnection:
        """Return a connection that takes new streams, as soon as there is one; waits for ever."""
        while self._connection is None or self._connection.event_unavailable.is_set():
            await self._found.wait()
            await trio.lowlevel.checkpoint()
        return self._connection

    async def protocol(self) -> str:
        """Return the protocol to open tunnels with: the Go PeerTunnel knows ours under its own name only."""
        if not self._service.is_public:
            return TUNNEL
        await self._asked.wait()
        return GO_TUNNEL if GO_TUNNEL in self._protocols and TUNNEL not in self._protocols else TUNNEL

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
