"""The yamux multiplexer, sans I/O (/yamux/1.0.0)."""

from .events import (
    DataReceived,
    Event,
    GoAwayReceived,
    PeerTimedOut,
    PingAnswered,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from .frames import HEADER_SIZE, Flag, FrameType, GoAwayCode, encode
from .session import MAX_PAYLOAD, MAX_STREAMS, MAX_UNACKNOWLEDGED, ClientSession, ServerSession, Session
from .window import INITIAL_WINDOW, MAX_WINDOW, MEMORY_CAP

__all__ = [
    "HEADER_SIZE",
    "INITIAL_WINDOW",
    "MAX_PAYLOAD",
    "MAX_STREAMS",
    "MAX_UNACKNOWLEDGED",
    "MAX_WINDOW",
    "MEMORY_CAP",
    "ClientSession",
    "DataReceived",
    "Event",
    "Flag",
    "FrameType",
    "GoAwayCode",
    "GoAwayReceived",
    "PeerTimedOut",
    "PingAnswered",
    "ServerSession",
    "Session",
    "StreamAcknowledged",
    "StreamFinished",
    "StreamOpened",
    "StreamReset",
    "WindowOpened",
    "encode",
]
