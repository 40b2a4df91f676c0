"""The seam under the multiplexer: a secured pipe of bytes whose writes never wait.

Writes are handed over whole and either leave at once or stay with the channel, which then counts as blocked until
they have left. So no cancelled task can cut a record in two, and no reader ever waits for a writer: the two deadlocks
that a multiplexer with awaiting writes is prone to.
"""

from collections.abc import Callable
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Channel(Protocol):
    """A secured pipe to one peer."""

    is_blocked: bool
    """Whether an earlier write has not fully left; `send` must wait for `drained`."""

    def send(self, *buffers: Buffer) -> None:
        """Send the buffers as one batch; they may be reused as soon as this returns.

        Only when not blocked. A channel whose peer is gone takes the bytes and drops them: `run` tells.
        """
        ...

    async def run(self, received: Callable[[memoryview], None], drained: Callable[[], None]) -> None:
        """Carry bytes until the peer closes its side.

        Args:
            received: called with plaintext, a view that is valid until it returns.
            drained: called whenever the channel stops being blocked.

        Raises:
            OSError: the connection broke.
            RemoteProtocolError: what came is not what the peer sealed.
        """
        ...

    @property
    def unacknowledged(self) -> int:
        """Bytes that have left us and not come to the peer's host yet, 0 where the system doesn't count."""
        ...

    def progressed(self) -> bool:
        """Return whether the peer's host took bytes since the last call and has yet to take more.

        What we sent last may then not have come to it, however long ago that was.
        """
        ...

    def finish(self) -> None:
        """Announce the end of what we send, once all of it has left."""
        ...

    def close(self) -> None:
        """Close at once; what was sent still arrives where that can be."""
        ...

    def abort(self) -> None:
        """Close at once, with nothing of it left to the system."""
        ...
