"""What is sent through a tunnel, and what both of its ends check: each client says first what it wants."""

import os
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum
from hashlib import sha256
from random import Random

import trio

from tests.node.pair import reset

_REQUEST = struct.Struct("!BBQ")  # what, the number of the route, bytes
_CHUNK = 256 * 1024  # bytes
_NOISE = memoryview(os.urandom(8 * 1024 * 1024))
_DIGEST = 32  # bytes
_BULK = (1 << 20, 32 << 20)  # bytes
_SLOW = 2 << 20  # bytes, a piece at a time
_PAUSE = 0.02  # seconds between the pieces of a slow reader
_ENDLESS = 1 << 40  # bytes
_ROUNDS = 100  # of one echo


class Wrong(Exception):
    """Bytes were changed or added, or a reset came as an end."""


class Short(Wrong):
    """An end came before all bytes."""


class Want(IntEnum):
    """What a client asks of the target."""

    UP = 0
    DOWN = 1
    ECHO = 2
    DROP = 3


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := await stream.receive_some(size - len(data))):
            raise Short(f"an end after {len(data)} of {size} bytes")
        data += part
    return data


async def _end(stream: trio.SocketStream) -> None:
    if await stream.receive_some(1):
        raise Wrong("bytes behind the last one")


async def _send(stream: trio.SocketStream, size: int) -> bytes:
    """Send noise from somewhere; return its digest."""
    digest, at = sha256(), Random().randrange(len(_NOISE) - _CHUNK)
    while size:
        part = _NOISE[at : at + min(size, _CHUNK)]
        await stream.send_all(part)
        digest.update(part)
        size -= len(part)
        at = (at + len(part)) % (len(_NOISE) - _CHUNK)
    return digest.digest()


async def _take(stream: trio.SocketStream, size: int, pause: float = 0) -> bytes:
    """Receive so many bytes; return their digest."""
    digest, left = sha256(), size
    while left:
        if not (part := await stream.receive_some(min(left, _CHUNK))):
            raise Short(f"an end after {size - left} of {size} bytes")
        digest.update(part)
        left -= len(part)
        if pause:
            await trio.sleep(pause)
    return digest.digest()


# -- the client's side --------------------------------------------------------------------------------------------

Exchange = Callable[[trio.SocketStream, int, Random], Awaitable[int]]
"""Given a stream, the number of its route and what decides: gives the bytes that were checked."""


async def up(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Send bulk, and have the target say what came."""
    size = random.randint(*_BULK)
    await stream.send_all(_REQUEST.pack(Want.UP, route, size))
    sent = await _send(stream, size)
    await stream.send_eof()
    if await _exactly(stream, _DIGEST) != sent:
        raise Wrong("bulk was changed on its way up")
    await _end(stream)
    return size


async def _down(stream: trio.SocketStream, route: int, size: int, pause: float) -> int:
    await stream.send_all(_REQUEST.pack(Want.DOWN, route, size))
    await stream.send_eof()
    came = await _take(stream, size, pause)
    if await _exactly(stream, _DIGEST) != came:
        raise Wrong("bulk was changed on its way down")
    await _end(stream)
    return size


async def down(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Have bulk sent, and its digest behind it."""
    return await _down(stream, route, random.randint(*_BULK), 0)


async def slow(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Have bulk sent and read it slowly."""
    return await _down(stream, route, random.randint(1, _SLOW), _PAUSE)


async def _echo(stream: trio.SocketStream, route: int, random: Random, rounds: int) -> int:
    await stream.send_all(_REQUEST.pack(Want.ECHO, route, 0))
    size = 0
    for _ in range(rounds):
        word = random.randbytes(random.choice((1, 10, 1000)))
        await stream.send_all(word)
        if await _exactly(stream, len(word)) != word:
            raise Wrong("an echo is another word")
        size += len(word)
    await stream.send_eof()
    await _end(stream)
    return size


async def echo(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Have many words echoed, one after the other."""
    return await _echo(stream, route, random, _ROUNDS)


async def short(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Have one word echoed."""
    return await _echo(stream, route, random, 1)


async def abort(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Abort in the midst of bulk, up or down."""
    want, size = random.choice((Want.UP, Want.DOWN)), random.randint(1, _SLOW)
    await stream.send_all(_REQUEST.pack(want, route, _ENDLESS))
    await (_send if want is Want.UP else _take)(stream, size)
    reset(stream)
    return size


async def dropped(stream: trio.SocketStream, route: int, random: Random) -> int:
    """Have the target abort in the midst of bulk."""
    size, came = random.randint(1, _SLOW), 0
    await stream.send_all(_REQUEST.pack(Want.DROP, route, size))
    try:
        while part := await stream.receive_some():
            came += len(part)
    except trio.BrokenResourceError:
        return came
    raise Short("a reset came as an end")


ALL: dict[str, Exchange] = {
    "bulk up": up,
    "bulk down": down,
    "a slow reader": slow,
    "echo": echo,
    "a short tunnel": short,
    "an abort": abort,
    "an abort by the target": dropped,
}


# -- the target's side --------------------------------------------------------------------------------------------


async def request(stream: trio.SocketStream) -> tuple[Want, int, int]:
    """Receive what a client wants: what, the number of its route, and bytes."""
    want, route, size = _REQUEST.unpack(await _exactly(stream, _REQUEST.size))
    return Want(want), route, size


async def answer(stream: trio.SocketStream, want: Want, size: int) -> None:
    """Do what a client wants."""
    match want:
        case Want.UP:
            came = await _take(stream, size)
            await _end(stream)
            await stream.send_all(came)
        case Want.DOWN:
            await stream.send_all(await _send(stream, size))
        case Want.DROP:
            await _send(stream, size)
            reset(stream)
            return
        case Want.ECHO:
            async for word in stream:
                await stream.send_all(word)
    await stream.send_eof()
