"""Agreeing on a protocol before there are streams: multistream-select, message by message.

No byte is read that comes behind the agreement: it is for whoever speaks the protocol.
"""

from collections.abc import Sequence
from typing import Protocol

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.multistream import GREETING, Initiator, Responder


class Pipe(Protocol):
    """What the two ends speak through."""

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...


async def read_exactly(pipe: Pipe, size: int) -> bytes:
    """Read so many bytes; raises ConnectionError if the peer hangs up before."""
    data = await pipe.read(size)
    while len(data) < size:
        more = await pipe.read(size - len(data))
        if not more:
            raise ConnectionError("the peer hung up")
        data += more
    return data


async def propose(pipe: Pipe, protocols: Sequence[str]) -> str:
    """Agree on the first of our protocols that the peer speaks; raises RemoteProtocolError if there is none."""
    initiator = Initiator(protocols[0])
    await pipe.write(initiator.hello())
    for following in (*protocols[1:], None):
        while initiator.agreed is None:
            initiator.receive(await _read_message(pipe))
        if initiator.agreed:
            return initiator.protocol
        if following is not None:
            await pipe.write(initiator.propose(following))
    raise RemoteProtocolError(f"the peer speaks none of {', '.join(protocols)}")


async def respond(pipe: Pipe, protocols: Sequence[str], *, speaks_first: bool = False) -> str:
    """Agree on the first of the peer's proposals that we speak; raises RemoteProtocolError if it tries too many.

    Who speaks first sends the header of its answer before the peer has said anything.
    """
    responder, greeting = Responder(protocols.__contains__, lambda: list(protocols)), b""
    if speaks_first:
        greeting = GREETING
        await pipe.write(greeting)
    while responder.protocol is None:
        answer, _ = responder.receive(await _read_message(pipe))
        if answer := answer.removeprefix(greeting):
            await pipe.write(answer)
        greeting = b""
    return responder.protocol


async def _read_message(pipe: Pipe) -> bytes:
    """Read a length of one byte or two, and so many bytes; whether it may be that long is for the protocol to say."""
    prefix = await read_exactly(pipe, 1)
    size = prefix[0]
    if size & 0x80:
        prefix += await read_exactly(pipe, 1)
        size = size & 0x7F | prefix[1] << 7
    return prefix + (await read_exactly(pipe, size) if size else b"")
