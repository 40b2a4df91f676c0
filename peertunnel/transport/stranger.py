"""A caller that nobody knows: it dials from a port and with a peer id that have nothing to do with us.

A NAT that is open for our own port would let us in where it stops strangers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.peer.id import ID

from peertunnel.identity import Identity
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.tcp import SockAddress, connect
from peertunnel.transport.upgrade import UpgradeError, Upgrader


class Nobody:
    """Serves nothing."""

    def speaks(self, protocol: str) -> bool:
        """Refuse every protocol."""
        return False

    def offered(self) -> list[str]:
        """Offer none."""
        return []

    def route(self, stream: MuxedStream) -> None:
        """Take no stream."""
        stream.abort()


class Stranger:
    """Dials peers.

    Args:
        reactor: watches the sockets.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._upgrader = Upgrader(Identity.ephemeral(), reactor, Nobody())

    @asynccontextmanager
    async def at(self, peer_id: ID, target: SockAddress, within: float) -> AsyncIterator[MuxedConnection]:
        """Connect to a peer, and hang up at the end.

        Args:
            within: seconds until there must be a secured connection.

        Raises:
            OSError: there was no connection.
            UpgradeError: somebody else was there, or nobody in time.
        """
        connection = None
        with trio.move_on_after(within):
            sock = await connect(target)
            connection = await self._upgrader.upgrade(sock, peer_id, is_client=True)
        if connection is None:
            raise UpgradeError("nobody answered in time")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.start)
            try:
                await connection.event_started.wait()
                yield connection
            finally:
                with trio.CancelScope(shield=True):
                    await connection.close()
