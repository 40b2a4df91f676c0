"""What we show a relay before we use it: that we know the secret of the service for which we do.

A relay that was told the secret carries the circuits of whoever knows it without limits (`pt relay --unlimited-id-file`).
Each proof lets its other end try one guess, so only relays that the user has named get any, and only those that say that
they take proofs. Who fails is not asked again soon; nothing else comes of it than limits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from peertunnel.auth import Authenticator
from peertunnel.errors import NotFound, Refused
from peertunnel.host import Host
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import identified

PATIENCE = 2.0  # seconds for a relay to say what it speaks and to take the proof; who wants a circuit waits meanwhile
PAUSE = 600.0  # seconds until a relay that did not take it is shown it again: 53,000 guesses a year


@dataclass(slots=True, eq=False)
class _Relay:
    """A relay that the user has named; one proof at a time is shown to it."""

    turn: trio.Lock = field(default_factory=trio.Lock)
    again_at: float = 0.0  # trio's clock


class Credentials:
    """Shows relays that we know a service's secret.

    Args:
        host: whose connections they are.
        root: the service's root secret, 32 bytes.
        relays: the peer ids (base58) of those that the user has named.
    """

    def __init__(self, host: Host, root: bytes, relays: Iterable[str]) -> None:
        # Both ends of the service are consumers there: what they get from a relay is the way to each other.
        self._authenticator = Authenticator(
            host, Role.CONSUMER, root, on_proven=lambda connection: None, keeps=False
        )
        self._relays = {relay: _Relay() for relay in relays}

    async def show(self, connection: MuxedConnection) -> None:
        """Prove ourselves to a relay, if it is one that may be shown the proof and takes it."""
        relay = self._relays.get(str(connection.peer_id))
        if relay is None:
            return
        async with relay.turn:
            if connection in self._authenticator.proven or trio.current_time() < relay.again_at:
                return
            with trio.move_on_after(PATIENCE):
                if AUTH in (await identified(connection)).protocols:
                    await self._prove(connection, relay)

    async def _prove(self, connection: MuxedConnection, relay: _Relay) -> None:
        relay.again_at = trio.current_time() + PAUSE  # however this ends but well: even if it is cancelled
        try:
            await self._authenticator.prove(connection)
        except (NotFound, Refused):
            return
        relay.again_at = 0.0
