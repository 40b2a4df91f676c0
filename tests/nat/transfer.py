"""A transfer while the network fails: in the end all of it has come through, or both ends know that it has not."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from hashlib import sha256

import trio

from tests.nat.crossing import Crossing

CHUNK = 16384  # bytes of noise at a time
PACE_SECONDS = 0.02  # between chunks: 800 kB/s
MOVE_SECONDS = 30.0  # until what is waited for has come back
END_SECONDS = 60.0  # until the end is clean, or the connection aborted


class Ending(Enum):
    """How a transfer ended."""

    WHOLE = auto()  # all bytes came back, and then the end of them
    BROKEN = auto()  # the connection was aborted


class Transfer:
    """Noise that goes through a tunnel and comes back from the target, until it is told to finish."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.sent = 0
        self.received = 0
        self._stream = stream
        self._noise = random.Random(0)
        self._digests = sha256(), sha256()
        self._finishing = trio.Event()
        self._ended = trio.Event()
        self._ending: Ending | None = None
        self._moved = trio.Event()

    async def moved(self, size: int, seconds: float = MOVE_SECONDS) -> None:
        """Wait until so many more bytes have come back."""
        wanted = self.received + size
        with trio.fail_after(seconds):
            while self.received < wanted and self._ending is None:
                await self._moved.wait()

    async def finish(self, seconds: float = END_SECONDS) -> Ending:
        """Send no more, and tell how it ended.

        Raises AssertionError where fewer or other bytes came back and yet the end is clean, and TooSlowError where
        there was no end at all.
        """
        self._finishing.set()
        with trio.fail_after(seconds):
            await self._ended.wait()
        if self._ending is Ending.WHOLE:
            assert self.received == self.sent, f"{self.received} of {self.sent} bytes, and a clean end"
            assert self._digests[0].digest() == self._digests[1].digest(), "other bytes came back"
        assert self._ending is not None
        return self._ending

    async def run(self) -> None:
        """Send and receive until the end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                await self._receive()
            self._ending = Ending.WHOLE
        except* (trio.BrokenResourceError, ConnectionError):
            self._ending = Ending.BROKEN
        self._ended.set()
        self._moved.set()

    async def _send(self) -> None:
        while not self._finishing.is_set():
            data = self._noise.randbytes(CHUNK)
            self._digests[0].update(data)
            self.sent += len(data)
            await self._stream.send_all(data)
            with trio.move_on_after(PACE_SECONDS):
                await self._finishing.wait()
        await self._stream.send_eof()

    async def _receive(self) -> None:
        async for data in self._stream:
            self._digests[1].update(data)
            self.received += len(data)
            self._moved.set()
            self._moved = trio.Event()


@asynccontextmanager
async def transferring(crossing: Crossing) -> AsyncIterator[Transfer]:
    """Keep a transfer running through a tunnel until the block ends."""
    async with await crossing.connect() as stream, trio.open_nursery() as nursery:
        transfer = Transfer(stream)
        nursery.start_soon(transfer.run)
        yield transfer
        nursery.cancel_scope.cancel()
