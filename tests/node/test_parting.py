"""A node that stops lets what ended streams have sent arrive, however slow the line is, and waits for nobody who takes nothing."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

from peertunnel.config import Transports
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.transport import quic
from peertunnel.transport.connection import LINGER
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.yamux import YamuxConnection
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.node.test_circuits import relay, reserved

if TYPE_CHECKING:
    from trio_typing import TaskStatus

PROTOCOL = "/test/1.0.0"
SIZE = 320 << 10  # bytes: far more than the line carries while any connection that is closed lingers
RATE = 64 << 10  # bytes a second
SMALL = 16 << 10  # bytes that the system holds for the line, each way
DATAGRAMS = 32  # that wait for the line; the others are lost

LINES: list[Transports] = ["tcp"] if quic.why_not() is not None else ["tcp", "quic"]


class Line:
    """A slow line to an address: to it, it carries so many bytes a second; the way back is quick.

    Args:
        host: what is at its other end.

    Attributes:
        address: its near end.
        is_cut: nothing gets through any more.
    """

    def __init__(self, host: Host, transport: Transports) -> None:
        self.address = ""
        self.is_cut = False
        (place,) = (place for place in host.listening if ("/tcp/" in place) == (transport == "tcp"))
        self._to = ("127.0.0.1", int(place.split("/")[4]))
        self._transport = transport

    async def run(self, nursery: trio.Nursery) -> None:
        if self._transport == "quic":
            near, far = (trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            await near.bind(("127.0.0.1", 0))
            self.address = f"/ip4/127.0.0.1/udp/{near.getsockname()[1]}/quic-v1"
            nursery.start_soon(self._carry_datagrams, near, far, nursery)
            return
        listener = trio.socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.address = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
        nursery.start_soon(self._carry_bytes, listener, nursery)

    async def _carry_bytes(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        near = trio.SocketStream((await listener.accept())[0])
        far = await trio.open_tcp_stream(*self._to)

        async def back() -> None:
            async for data in far:
                await near.send_all(data)

        nursery.start_soon(back)
        while data := await near.receive_some(SMALL):
            await self._take_time(len(data))
            await far.send_all(data)
        await far.send_eof()

    async def _carry_datagrams(
        self, near: trio.socket.SocketType, far: trio.socket.SocketType, nursery: trio.Nursery
    ) -> None:
        send, receive = trio.open_memory_channel[bytes](DATAGRAMS)
        data, client = await near.recvfrom(65536)
        await far.sendto(data, self._to)

        async def back() -> None:
            while True:
                await near.sendto(await far.recv(65536), client)

        async def carry() -> None:
            async for data in receive:
                await self._take_time(len(data))
                await far.sendto(data, self._to)

        nursery.start_soon(back)
        nursery.start_soon(carry)
        while True:
            try:
                send.send_nowait(await near.recv(65536))
            except trio.WouldBlock:
                pass  # it has no room for it

    async def _take_time(self, size: int) -> None:
        await trio.sleep(size / RATE)
        if self.is_cut:
            await trio.sleep_forever()


class Reader:
    """Reads a stream to its end; has_ended: to a clean one."""

    def __init__(self) -> None:
        self.received = 0
        self.has_ended = False

    async def run(self, stream: MuxedStream) -> None:
        try:
            while True:
                self.received += len(await stream.read())
        except MuxedStreamEOF:
            self.has_ended = True
        except MuxedStreamReset:
            pass


@dataclass
class Client:
    """A host that is stopped by an event, or at once by its scope, and says when it is gone."""

    host: Host
    scope: trio.CancelScope
    stop: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)


async def run(transport: Transports, task_status: "TaskStatus[Client]") -> None:
    """Run a client until it is stopped."""
    with trio.CancelScope() as scope:
        async with open_host(Identity.ephemeral(), (), transport) as host:
            client = Client(host, scope)
            task_status.started(client)
            await client.stop.wait()
    client.gone.set()


@asynccontextmanager
async def through(
    entry: Host, server: Host, transport: Transports, held: int
) -> AsyncIterator[tuple[Line, Client, Reader]]:
    """Yield a line to `entry`, and what `ended` yields, with a client that reaches the server there or by a circuit."""
    arrived: list[MuxedStream] = []
    reader = Reader()
    async with trio.open_nursery() as nursery:
        client: Client = await nursery.start(run, transport)
        line = Line(entry, transport)
        await line.run(nursery)
        server.serve(PROTOCOL, arrived.append)
        place = line.address if entry is server else f"{line.address}/p2p/{entry.peer_id}/p2p-circuit"
        connection = await client.host.dial(server.peer_id, [place], PATIENCE)
        (outer,) = client.host.connections(entry.peer_id)
        if isinstance(outer, YamuxConnection):
            outer._raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, held)
        opened = await connection.open_tunnel(PROTOCOL)
        await until(lambda: arrived)
        nursery.start_soon(reader.run, arrived[0])
        await arrived[0].close_write()
        await opened.write(bytes(SIZE))
        await opened.close_write()
        await until(lambda: opened.is_closed)
        assert connection.has_streams and not reader.has_ended
        yield line, client, reader
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def ended(transport: Transports, held: int = SMALL) -> AsyncIterator[tuple[Line, Client, Reader]]:
    """Yield a line, the client at its near end and who reads at the far end of a stream that has ended for the client.

    held: bytes that the client's system holds for the line.
    """
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, transport) as server,
        through(server, server, transport, held) as opened,
    ):
        yield opened


@pytest.mark.parametrize("held", [SMALL, 2 * SIZE], ids=["by us", "by the system"])
@pytest.mark.parametrize("transport", LINES)
async def test_what_was_sent_before_we_stop_arrives_on_a_slow_line(transport: Transports, held: int) -> None:
    async with ended(transport, held) as (_, client, reader):
        client.stop.set()
        await until(lambda: reader.has_ended)
        assert reader.received == SIZE


async def test_nor_is_it_lost_on_the_way_through_a_relay() -> None:
    async with (
        relay() as (point, _),
        reserved(point) as server,
        through(point, server, "tcp", SMALL) as (_, client, reader),
    ):
        client.stop.set()
        await until(lambda: reader.has_ended)
        assert reader.received == SIZE


@pytest.mark.parametrize("transport", LINES)
async def test_who_takes_nothing_any_more_is_not_waited_for(transport: Transports) -> None:
    async with ended(transport) as (line, client, _):
        line.is_cut = True
        client.stop.set()
        with trio.fail_after(PATIENCE):  # over QUIC it may take until the peer counts as lost, 14 s
            await client.gone.wait()


@pytest.mark.parametrize("transport", LINES)
async def test_who_is_stopped_at_once_waits_for_nobody(transport: Transports) -> None:
    async with ended(transport) as (_, client, reader):
        client.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not client.gone.is_set()
        client.scope.cancel()
        with trio.fail_after(3 * LINGER):
            await client.gone.wait()
        assert not reader.has_ended
