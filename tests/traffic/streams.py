"""What is sent where the test is at both ends of a tunnel."""

from contextlib import suppress
from hashlib import sha256
from random import Random

import trio

MIB = 1 << 20
CHUNK = 256 << 10  # bytes


def noise(seed: int, size: int) -> bytes:
    """Give bytes that nobody confuses with others."""
    return Random(seed).randbytes(size)


async def send_until_reset(stream: trio.SocketStream) -> None:
    """Send until the connection is lost."""
    data = noise(0, CHUNK)
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(data)


async def send(stream: trio.SocketStream, data: bytes) -> None:
    """Send all and end."""
    await stream.send_all(data)
    await stream.send_eof()


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Receive so many bytes: an end before that is a failure."""
    parts = []
    while size:
        part = await stream.receive_some(size)
        assert part, f"the stream ended {size} bytes too early"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


async def expect(stream: trio.SocketStream, data: bytes) -> None:
    """Receive this and the end, and nothing else."""
    digest, size = sha256(), 0
    async for part in stream:
        digest.update(part)
        size += len(part)
    assert (size, digest.digest()) == (len(data), sha256(data).digest())
