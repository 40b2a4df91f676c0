"""Whose circuits through a relay have no limits: peers on a list, and those that prove that they know a secret."""

from typing import TYPE_CHECKING

import trio

from peertunnel.access import AllowedPeers
from peertunnel.auth import Authenticator
from peertunnel.boundary import contained
from peertunnel.errors import StoreError
from peertunnel.events import Complaint, Emit
from peertunnel.host import Host
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.transport.connection import MuxedConnection

if TYPE_CHECKING:
    from trio_typing import TaskStatus

LOOK = 1.0  # seconds between looks at the list


class Trust:
    """Knows whom a relay trusts.

    Args:
        host: the relay's.
        peers: the list.
        root: the root secret of a service whose ends are trusted, 32 bytes; None for no such service.
        emit: takes complaints about the list.
    """

    def __init__(self, host: Host, peers: AllowedPeers, root: bytes | None, emit: Emit) -> None:
        self._host = host
        self._peers = peers
        self._emit = emit
        self._complaint = Complaint()
        self._authenticator: Authenticator | None = None
        if root is not None:
            # Both ends of the service are its consumers here: what they get from us is the way to each other.
            self._authenticator = Authenticator(host, Role.PROVIDER, root, on_proven=lambda connection: None)

    def covers(self, connection: MuxedConnection) -> bool:
        """Return whether circuits of the peer at the other end have no limits."""
        is_proven = self._authenticator is not None and connection in self._authenticator.proven
        return is_proven or str(connection.peer_id) in self._peers

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Let peers prove themselves, and follow the list, until cancelled; started as soon as we do."""
        if self._authenticator is not None:
            self._host.serve(AUTH, self._authenticator.accept)
        task_status.started()
        try:
            while True:
                await trio.sleep(LOOK)
                await contained(self._read_list)
        finally:
            self._host.stop_serving(AUTH)

    async def _read_list(self) -> None:
        try:
            self._peers.reload_if_changed()
        except StoreError as error:  # half written, perhaps: what was read before counts until it is right
            self._complaint.make(error, self._emit)
            return
        self._complaint.withdraw()
