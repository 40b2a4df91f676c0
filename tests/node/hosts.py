"""Two hosts on this machine, that speak QUIC unless they are asked not to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from peertunnel.config import Transports
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, until

PROTOCOL = "/test/1.0.0"


@asynccontextmanager
async def hosts(kind: Transports = "quic") -> AsyncIterator[tuple[Host, Host, MuxedConnection]]:
    """Yield a server, a client and the client's connection to it."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, kind) as server,
        open_host(Identity.ephemeral(), (), kind) as client,
    ):
        yield server, client, await client.dial(server.peer_id, server.addresses, PATIENCE)


@asynccontextmanager
async def streams(kind: Transports = "quic") -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """Yield both ends of one stream; the first belongs to the host that dialled."""
    arrived: list[MuxedStream] = []
    async with hosts(kind) as (server, _, connection):
        server.serve(PROTOCOL, arrived.append)
        opened = await connection.open_tunnel(PROTOCOL)
        with trio.fail_after(PATIENCE):
            await until(lambda: arrived)
        yield opened, arrived[0]
