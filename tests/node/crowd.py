"""A thousand streams of one connection at a time: opened, written, read, ended and aborted at random, beside a model.

Each stream joins two TCP sockets, as a tunnel does. Whoever reads at one of them knows which byte comes next; an end
comes only behind all bytes that were sent, and a reset only of a reset or of the loss of the connection.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from peertunnel.config import Transports
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.protocols.yamux import MAX_STREAMS
from peertunnel.streams import Outcome, Unavailable
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, reset, until

PROTOCOL = "/crowd/1.0.0"
AT_ONCE = 1000  # streams, half of them opened by either end
_ABORTS = 0.15  # of all ways are aborted instead of ended
_PAUSES = 0.2  # of all pieces are followed by a pause
_PAUSE = 0.2  # seconds at most
_LATE = 2.0  # seconds at most until a stream that came is joined: its end may be there before
_NARROWS = 0.5  # of all sockets take only little at a time
_NARROW = 32 * 1024  # bytes
_SIZES = (1, 1, 1, 100, 5_000, 70_000, 70_000, 400_000)  # bytes of a piece at most
_FLOWING = 16 * 1024 * 1024  # bytes of all streams after which the connection may be cut
_NUMBER = 4  # bytes that tell the far end which stream it is
_PERIOD = 1_000_003  # bytes, a prime
_NOISE = Random(0).randbytes(_PERIOD) * 2

Ends = tuple[MuxedConnection, MuxedConnection]


def content(number: int, side: int, at: int, size: int) -> bytes:
    """Give what a stream carries there, up to a megabyte: no two ways and no two places look alike."""
    start = (number * 1009 + side * 499 + at) % _PERIOD
    return _NOISE[start : start + size]


@dataclass(slots=True)
class Way:
    """What one end of a stream has sent."""

    sent: int = 0  # bytes
    is_finished: bool = False


@dataclass(slots=True)
class Talk:
    """What both ends of a stream have done."""

    number: int
    ways: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))
    is_aborted: bool = False


class Crowd:
    """The streams between two hosts, and what has become of them.

    Args:
        random: decides everything but the order in which tasks run.
        connections: both ends of their connection.
        listener: where the ends' sockets are connected.

    Attributes:
        connections: both ends of their connection.
        is_lost: the connection has been cut, so that no reset surprises.
        ended: ways that ended behind all of their bytes.
        cut: ways that were reset.
        carried: bytes that arrived.
    """

    def __init__(self, random: Random, connections: Ends, listener: socket.socket) -> None:
        self.connections = connections
        self.is_lost = False
        self.ended = self.cut = self.carried = 0
        self._random = random
        self._listener = listener
        self._talks: dict[int, Talk] = {}
        self._there = 0
        self._is_full = trio.Event()  # before, no stream goes on
        self._rooms = (trio.Semaphore(AT_ONCE // 2), trio.Semaphore(AT_ONCE // 2))

    async def bustle(self, seconds: float) -> None:
        """Have as many streams as may be there, and new ones for those that end; then wait until all have ended."""
        end = trio.current_time() + seconds

        async def keep_opening(connection: MuxedConnection, room: trio.Semaphore) -> None:
            while trio.current_time() < end and not self.is_lost:
                await room.acquire()
                self._nursery.start_soon(self._open, connection, room)
                while room.value:
                    room.acquire_nowait()
                    self._nursery.start_soon(self._open, connection, room)

        async with trio.open_nursery() as self._nursery:
            async with trio.open_nursery() as openers:
                for connection, room in zip(self.connections, self._rooms, strict=True):
                    openers.start_soon(keep_opening, connection, room)
            self._nursery.cancel_scope.deadline = trio.current_time() + 3 * PATIENCE
        assert not self._nursery.cancel_scope.cancelled_caught, "streams that don't end"

    async def cut_when_full(self) -> None:
        """Lose the connection while all streams are there and in flow."""
        await self._is_full.wait()
        await until(lambda: self.carried > _FLOWING)
        self.is_lost = True
        await self.connections[0].close()

    async def _open(self, connection: MuxedConnection, room: trio.Semaphore) -> None:
        talk = Talk(len(self._talks))
        self._talks[talk.number] = talk
        try:
            sock = self._joined(await connection.open_tunnel(PROTOCOL))
            self._there += 1
            if self._there == AT_ONCE:
                self._is_full.set()
            await sock.send_all(talk.number.to_bytes(_NUMBER))
            await self._talk(talk, 0, sock)
        except Unavailable:
            assert self.is_lost
        finally:
            self._there -= 1
            room.release()

    def accept(self, stream: MuxedStream) -> None:
        """Take a stream that the other end has opened, at once or when some of its bytes may have come."""
        sock = self._joined(stream) if self._random.random() < 0.5 else None
        self._nursery.start_soon(self._answer, stream, sock)

    async def _answer(self, stream: MuxedStream, sock: trio.SocketStream | None) -> None:
        if sock is None:
            await trio.sleep(self._random.random() * _LATE)
            sock = self._joined(stream)
        number = b""
        try:
            while len(number) < _NUMBER:
                part = await sock.receive_some(_NUMBER - len(number))
                assert part, "a stream has ended before it said which one it is"
                number += part
        except trio.BrokenResourceError:
            await sock.aclose()
            return
        await self._talk(self._talks[int.from_bytes(number)], 1, sock)

    def _joined(self, stream: MuxedStream) -> trio.SocketStream:
        """Join a stream to a connection of which the other end is returned; many take little at a time."""
        is_narrow = self._random.random() < _NARROWS
        far = socket.socket()
        if is_narrow:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
        far.connect(self._listener.getsockname())
        near, _ = self._listener.accept()
        if is_narrow:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NARROW)
        near.setblocking(False)
        stream.attach(near, _ignore)
        return trio.SocketStream(trio.socket.from_stdlib_socket(far))

    async def _talk(self, talk: Talk, side: int, sock: trio.SocketStream) -> None:
        """Write and read at random; a reset is told once, and whoever is not told meets what looks like an end."""
        await self._is_full.wait()
        told: list[bool] = []

        async def write() -> None:
            told.append(await self._write(talk, side, sock))

        async with sock, trio.open_nursery() as both:
            both.start_soon(write)
            is_whole = await self._read(talk, 1 - side, sock)
        if is_whole is None or (not is_whole and told[0]):
            assert talk.is_aborted or self.is_lost, f"a stream that nobody aborted was reset; {self._fate()}"
            self.cut += 1
        else:
            assert is_whole, "a stream has ended too early"
            self.ended += 1

    def _fate(self) -> str:
        return " and ".join(f"{end.reason or 'alive'}" for end in self.connections)

    async def _write(self, talk: Talk, side: int, sock: trio.SocketStream) -> bool:
        """Write and end, or abort; return whether the way was reset."""
        random, way = self._random, talk.ways[side]
        aborts = random.random() < _ABORTS
        try:
            for _ in range(random.randrange(8)):
                piece = content(talk.number, side, way.sent, random.randint(1, random.choice(_SIZES)))
                way.sent += len(piece)
                await sock.send_all(piece)
                await self._dawdle()
            if aborts:
                talk.is_aborted = True
                reset(sock)
            else:
                way.is_finished = True
                await sock.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True
        return False

    async def _read(self, talk: Talk, side: int, sock: trio.SocketStream) -> bool | None:
        """Read to the end; return whether all was there that the other end has sent, None for a reset."""
        way, arrived = talk.ways[side], 0
        try:
            while part := await sock.receive_some(self._random.choice((1, 1000, 65_536, 262_144))):
                assert part == content(talk.number, side, arrived, len(part))
                arrived += len(part)
                assert arrived <= way.sent
                self.carried += len(part)
                await self._dawdle()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        return way.is_finished and arrived == way.sent

    async def _dawdle(self) -> None:
        if self._random.random() < _PAUSES:
            await trio.sleep(self._random.random() * _PAUSE)


def _ignore(outcome: Outcome) -> None:
    """Leave it to the sockets to tell."""


@asynccontextmanager
async def crowd(random: Random, transport: Transports) -> AsyncIterator[Crowd]:
    """Connect two hosts for a crowd."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            open_host(Identity.ephemeral(), LOOPBACK, transport) as server,
            open_host(Identity.ephemeral(), (), transport) as client,
        ):
            near = await client.dial(server.peer_id, server.addresses, PATIENCE)
            await until(lambda: server.connections(client.peer_id))
            (far,) = server.connections(client.peer_id)
            gathered = Crowd(random, (near, far), listener)
            for host, connection in ((server, far), (client, near)):
                host.serve(PROTOCOL, gathered.accept)
                connection.bears(MAX_STREAMS)
            yield gathered
