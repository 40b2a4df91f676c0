"""What a yamux session tells its owner, in the past tense and in the order it happened.

Not frozen, though nobody changes them: there are several for each message, and a frozen one takes three times as long.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


@dataclass(slots=True)
class StreamAcknowledged:
    """The peer accepted a stream that we opened."""

    stream_id: int


@dataclass(slots=True)
class DataReceived:
    """Payload arrived; `data` is a view that is valid until the next call of `receive`."""

    stream_id: int
    data: memoryview


@dataclass(slots=True)
class StreamFinished:
    """The peer sent FIN: all its data on this stream has been reported."""

    stream_id: int


@dataclass(slots=True)
class StreamReset:
    """The peer aborted a stream; nothing more can be sent or received on it."""

    stream_id: int


@dataclass(slots=True)
class WindowOpened:
    """The peer allowed more data on a stream whose send window was used up."""

    stream_id: int


@dataclass(slots=True)
class PingAnswered:
    """The peer answered our ping after `round_trip` seconds."""

    round_trip: float


@dataclass(slots=True)
class GoAwayReceived:
    """The peer accepts no new streams; open ones may finish."""

    code: int


@dataclass(slots=True)
class PeerTimedOut:
    """Nothing came from the peer for too long: the connection is dead."""


Event = (
    StreamOpened
    | StreamAcknowledged
    | DataReceived
    | StreamFinished
    | StreamReset
    | WindowOpened
    | PingAnswered
    | GoAwayReceived
    | PeerTimedOut
)
