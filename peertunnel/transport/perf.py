"""How fast a connection is, measured by sending over it (libp2p specs, perf): who asks says how much comes back.

1. The client names a number of bytes, 8 of them, big endian, sends what it likes, and ends its direction.
2. The server has read all of it then, sends as many bytes as were named, and ends the stream.
"""

from collections.abc import Callable

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

PROTOCOL = "/perf/1.0.0"
MAX_SIZE = 1024 * 1024  # bytes that a peer may have us send or read: what TCP has up to speed behind 50 ms
PATIENCE = 10.0  # seconds for one measurement that a peer wants
_CHUNK = 64 * 1024  # bytes that are written at a time


async def measure(connection: MuxedConnection, *, sent: int, received: int, within: float) -> float | None:
    """Return how many bytes a second went over a connection; if it takes too long, no more than this many did.

    Args:
        sent, received: bytes each way, in this order.
        within: seconds.

    Returns:
        None if the peer doesn't take part, or the connection ended.
    """
    began, arrived = trio.current_time(), 0
    stream: MuxedStream | None = None
    try:
        with trio.move_on_after(within) as patience:
            stream = await connection.open_tunnel(PROTOCOL)
            await stream.write(received.to_bytes(8))
            await _send(stream, sent)
            await stream.close_write()
            while True:
                arrived += len(await stream.read())
        if patience.cancelled_caught:
            return (sent + arrived) / within
    except MuxedStreamEOF:
        if arrived == received:
            return (sent + arrived) / (trio.current_time() - began)
    except (MuxedConnError, MuxedStreamError):
        pass
    finally:
        if stream is not None:
            stream.abort()
    return None


async def _send(stream: MuxedStream, size: int) -> None:
    for start in range(0, size, _CHUNK):
        await stream.write(bytes(min(_CHUNK, size - start)))


class Perf:
    """Takes part in measurements, one at a time for each connection.

    Args:
        admits: whether a connection may have us send.
        nursery: where streams are served.
    """

    def __init__(self, admits: Callable[[MuxedConnection], bool], nursery: trio.Nursery) -> None:
        self._admits = admits
        self._nursery = nursery
        self._measured: set[MuxedConnection] = set()

    def accept(self, stream: MuxedStream) -> None:
        """Serve a stream, or abort it."""
        connection = stream.muxed_conn
        if connection in self._measured or not self._admits(connection):
            stream.abort()
            return
        self._measured.add(connection)
        self._nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: MuxedStream) -> None:
        try:
            with trio.fail_after(PATIENCE):
                try:
                    await _answer(stream)
                finally:
                    self._measured.discard(stream.muxed_conn)  # the peer may ask again once it sees the end
                await stream.close_write()
        except (MuxedStreamError, trio.TooSlowError):
            stream.abort()


async def _answer(stream: MuxedStream) -> None:
    """Send as many bytes as a peer asks for; raises MuxedStreamError where that is too much."""
    wanted = int.from_bytes(await _read(stream))
    if wanted > MAX_SIZE:
        raise MuxedStreamError("too much is asked for")
    await _send(stream, wanted)


async def _read(stream: MuxedStream) -> bytes:
    """Read to the end, and return the first 8 bytes; raises MuxedStreamError if that is too much, or less."""
    wanted, size = bytearray(), 0
    try:
        while size <= 8 + MAX_SIZE:
            data = await stream.read()
            size += len(data)
            wanted += data[: 8 - len(wanted)]
    except MuxedStreamEOF:
        if len(wanted) == 8:
            return bytes(wanted)
    raise MuxedStreamError("not a measurement of ours")
