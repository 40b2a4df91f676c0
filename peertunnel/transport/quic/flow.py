"""A stream's flow: what of it is on the way between the engine and us."""

from dataclasses import dataclass

from peertunnel.protocols.yamux.window import MESSAGE, MESSAGES
from peertunnel.transport.stream import MuxedStream

TURN = 1024  # bytes that the engine takes at once for a turn; with fewer left to take, a stream is not behind all others


@dataclass(slots=True)
class Flow:
    """What a stream has on the way between the engine and us.

    Attributes:
        stream: the stream.
        held: bytes that were read and not consumed yet.
        unsent: bytes that the engine has not taken.
        served: when a turn of it last ended: it took all, or enough of it; 0 for never.
        is_full: the engine takes no more for now.
        is_paused: there may be more to read.
        is_read: everything has been read, and the peer's end.
        is_finishing: our end follows what is unsent.
        is_stopped: the peer reads no further, though more was to be sent.
        is_over: the stream takes no part any more; only what is unsent has to leave.
        messages: how many were sent in a row, up to now.
    """

    stream: MuxedStream
    held: int = 0
    unsent: bytes = b""
    served: float = 0.0
    is_full: bool = False
    is_paused: bool = False
    is_read: bool = False
    is_finishing: bool = False
    is_stopped: bool = False
    is_over: bool = False
    messages: int = 0

    def end(self) -> bool:
        """Take no part any more; return whether a tunnel has sent something that may be on the way, and the peer wants it."""
        is_wanted = not (self.is_over or self.is_stopped or self.is_full)
        self.is_over = True
        return is_wanted and self.stream.must_deliver and self.stream.sent_bytes > 0

    def carries_messages(self, size: int) -> bool:
        """Note that `size` bytes are sent; return whether they are one of many messages in a row."""
        self.messages = self.messages + 1 if size <= MESSAGE else 0
        return self.messages > MESSAGES
