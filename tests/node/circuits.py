"""Circuits by hand, over real connections on loopback: what clients and destinations say, and nothing else."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.circuit import HOP, MAX_MESSAGE, STOP, Limit, client, destination
from peertunnel.protocols.circuit.client import Reservation
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.relay_server import RelayServer
from peertunnel.transport.requests import read_message
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE


async def ask(connection: MuxedConnection, message: bytes) -> tuple[MuxedStream, bytes]:
    """Ask a relay something; return the stream and the answer."""
    with trio.fail_after(PATIENCE):
        stream = await connection.open_tunnel(HOP)
        await stream.write(encode_delimited(message))
        return stream, await read_message(stream, MAX_MESSAGE)


class Peer:
    """One that is connected to the relay; as a destination it takes every call."""

    def __init__(self, host: Host, relay_id: str, connection: MuxedConnection) -> None:
        self.host = host
        self.relay_id = relay_id
        self.connection = connection
        self.limit: Limit | None = None  # of the last call
        self._send_calls, self._calls = trio.open_memory_channel[MuxedStream](1000)
        host.serve(STOP, lambda stream: host.nursery.start_soon(self._take, stream))

    @property
    def peer_id(self) -> str:
        return self.host.peer_id

    async def _take(self, stream: MuxedStream) -> None:
        caller, self.limit = destination.read_stop(await read_message(stream, MAX_MESSAGE))
        assert caller != self.peer_id
        await stream.write(encode_delimited(destination.accept_stop()))
        await self._send_calls.send(stream)

    async def reserve(self) -> Reservation:
        stream, answer = await ask(self.connection, client.reserve())
        await stream.close()
        return client.read_reservation(answer, self.relay_id, self.peer_id)

    async def connect(self, other: "Peer") -> tuple[MuxedStream, MuxedStream]:
        """Open a circuit to another peer; return both ends."""
        stream, answer = await ask(self.connection, client.connect(other.peer_id))
        client.read_connected(answer)
        with trio.fail_after(PATIENCE):
            return stream, await other._calls.receive()


class Network:
    """A relay and a way to have peers of it."""

    def __init__(self, host: Host, server: RelayServer, trusted: set[str]) -> None:
        self.host = host
        self.server = server
        self.trusted = trusted

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        async with open_host(Identity.ephemeral(), ()) as host:
            connection = await host.dial(self.host.peer_id, self.host.addresses, PATIENCE)
            yield Peer(host, self.host.peer_id, connection)

    @asynccontextmanager
    async def circuit(self, *, is_trusted: bool = False) -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
        """Yield both ends of a circuit between two new peers."""
        async with self.peer() as caller, self.peer() as called:
            if is_trusted:
                self.trusted.add(called.peer_id)
            await called.reserve()
            yield await caller.connect(called)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, looking often."""
        with trio.fail_after(PATIENCE):
            while not is_so():  # noqa: ASYNC110  a relay tells nobody of it
                await trio.sleep(0.01)


@asynccontextmanager
async def network(limit: Limit | None = None) -> AsyncIterator[Network]:
    """Run a relay; `limit` is everybody's unless it is trusted."""
    trusted: set[str] = set()
    async with open_host(Identity.ephemeral(), LOOPBACK) as host, trio.open_nursery() as nursery:
        server = RelayServer(host, lambda connection: str(connection.peer_id) in trusted, limit)
        await nursery.start(server.run)
        yield Network(host, server, trusted)
        nursery.cancel_scope.cancel()


async def read_all(stream: MuxedStream) -> bytes:
    """Read up to the FIN; raises MuxedStreamReset for anything else."""
    data = bytearray()
    try:
        while True:
            data += await stream.read()
    except MuxedStreamEOF:
        return bytes(data)
