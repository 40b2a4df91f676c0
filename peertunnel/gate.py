"""A provider's gate: whose streams are taken, on every stream; who is sent away; and who may no longer stay."""

from collections.abc import Callable

import trio

from peertunnel.access import Access
from peertunnel.auth import Authenticator
from peertunnel.boundary import contained
from peertunnel.errors import StoreError
from peertunnel.events import Complaint, Emit, ProofsFailed, Warned
from peertunnel.meeting import Meeting
from peertunnel.node import Node
from peertunnel.protocols.address import address_of
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection

SEEKER_PAUSE = 30.0  # seconds between tries at a consumer that does not answer: it dials, too
LOOK = 1.0  # seconds between looks at the list of allowed peers and at who has not proven itself
MAX_UNPROVEN = 256  # connections of peers that have not proven themselves; the oldest go first
UNPROVEN_TIME = 30.0  # seconds after which such a connection is closed unless it is in use


class Gate:
    """Decides for one service.

    Args:
        node: provides it.
        service: what is provided.
        access: the rules.
        emit: takes ProofsFailed, at most one a second, and warnings.
        on_proven: called with each connection on which a peer has proven itself.
    """

    def __init__(
        self,
        node: Node,
        service: Service,
        access: Access,
        emit: Emit,
        on_proven: Callable[[MuxedConnection], None] = lambda connection: None,
    ) -> None:
        self._node = node
        self._service = service
        self._access = access
        self._emit = emit
        self._failed = self._told = 0
        self._last = ("", "")
        self._complaint = Complaint()  # about the list of allowed peers
        self._seen: dict[MuxedConnection, float] = {}
        self._authenticator: Authenticator | None = None
        if service.root is not None:
            self._authenticator = Authenticator(
                node.host,
                Role.PROVIDER,
                service.root,
                on_proven=on_proven,
                on_failed=self._note_failure,
                decide=access.decide,
                may_prove=access.may_prove,
            )

    def admits(self, connection: MuxedConnection) -> bool:
        """Return whether a stream on this connection is taken."""
        if not self._node.may_carry(connection):
            return False
        is_proven = self._authenticator is not None and connection in self._authenticator.proven
        return is_proven or self._access.admits_unproven(str(connection.peer_id))

    async def run(self) -> None:
        """Let peers prove themselves, and close the connections of those that may not stay, until cancelled."""
        if self._authenticator is not None:
            self._node.host.serve(AUTH, self._authenticator.accept)
        try:
            while True:
                await trio.sleep(LOOK)
                for step in (self._tell_failures, self._revoke, self._send_away_strangers):
                    await contained(step)  # one by one: who is off the list goes, whatever else fails
        finally:
            self.close()

    def close(self) -> None:
        """Let nobody else prove themselves."""
        self._node.host.stop_serving(AUTH)

    async def reach_out(self) -> None:
        """Connect to consumers that seek the service and may not reach us, until cancelled."""
        authenticator = self._authenticator
        if authenticator is None:
            return

        def worth_dialling(peer_id: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
            here = [connection for connection in authenticator.proven if str(connection.peer_id) == peer_id]
            return tuple(filter(_elsewhere(here), addresses)) if self._access.may_prove(peer_id) else ()

        wanted = self._service.seekers()
        while True:
            meeting = Meeting(
                self._node.host,
                self._node.sources,
                wanted,
                authenticator,
                worth_dialling=worth_dialling,
                last_pause=SEEKER_PAUSE,
                may_dial=self._node.may_dial,
            )
            await contained(meeting.run)
            await trio.sleep(SEEKER_PAUSE)

    # -- failures -------------------------------------------------------------------------------------------------

    def _note_failure(self, peer_id: str, place: str) -> None:
        self._failed += 1
        self._last = (peer_id, place)

    async def _tell_failures(self) -> None:
        if self._failed > self._told:
            self._told = self._failed
            self._emit(ProofsFailed(self._failed, *self._last))

    # -- who may stay ---------------------------------------------------------------------------------------------

    async def _revoke(self) -> None:
        """Close the connections of peers that have been taken off the list, tunnels and all."""
        before = [connection for connection in self._node.host.all_connections() if self.admits(connection)]
        try:
            if not self._access.has_changed():
                return
        except StoreError as error:  # half written, perhaps: what was read before counts until it is right
            self._complaint.make(error, self._emit)
            return
        self._complaint.withdraw()
        gone = [connection for connection in before if not self._access.may_prove(str(connection.peer_id))]
        for connection in gone:  # all of them before they are told of, whatever comes of that
            if self._authenticator is not None:
                self._authenticator.proven.discard(connection)
            self._node.host.start_soon(connection.close)
        for connection in gone:
            self._emit(Warned(f"Peer {connection.peer_id} may no longer connect: its tunnels are closed."))

    async def _send_away_strangers(self) -> None:
        """Close what is not in use after a while, and the oldest when there are too many."""
        now = trio.current_time()
        strangers = [
            c
            for c in self._node.host.all_connections()
            if not c.is_initiator and not c.kept and not self.admits(c)
        ]
        self._seen = {connection: self._seen.get(connection, now) for connection in strangers}
        strangers.sort(key=lambda connection: self._seen[connection])
        for place, connection in enumerate(strangers):
            is_late = now - self._seen[connection] > UNPROVEN_TIME and not connection.has_streams
            if is_late or len(strangers) - place > MAX_UNPROVEN:
                self._node.host.start_soon(connection.close)


def _elsewhere(here: list[MuxedConnection]) -> Callable[[str], bool]:
    """Tell whether a multiaddr may lead to another program than these connections do: those of one user share a peer id.

    Who does not tell where it is may be anywhere.
    """
    told = [connection.acquaintance.addresses for connection in here]
    dialled = {address_of(str(one), str(c.peer_id)) for c in here for one in c.get_transport_addresses()}
    known = dialled.union(*told)
    return lambda address: all(told) and address not in known
