"""The yamux multiplexer, sans I/O (/yamux/1.0.0)."""

from peertunnel.protocols.yamux.events import (
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
from peertunnel.protocols.yamux.frames import HEADER_SIZE, Flag, FrameType, GoAwayCode, encode
from peertunnel.protocols.yamux.keepalive import INTERVAL as KEEPALIVE_INTERVAL
from peertunnel.protocols.yamux.session import (
    FEW_STREAMS,
    MAX_PAYLOAD,
    MAX_REPLIES,
    MAX_STREAMS,
    MAX_UNACKNOWLEDGED,
    ClientSession,
    ServerSession,
    Session,
)
from peertunnel.protocols.yamux.window import INITIAL_WINDOW, MAX_WINDOW, MEMORY_CAP

__all__ = [
    "FEW_STREAMS",
    "HEADER_SIZE",
    "INITIAL_WINDOW",
    "KEEPALIVE_INTERVAL",
    "MAX_PAYLOAD",
    "MAX_REPLIES",
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
