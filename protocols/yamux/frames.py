"""Yamux frames: a header of 12 bytes, and behind it the payload of a data frame.

Source: hashicorp/yamux spec.md, as libp2p uses it (/yamux/1.0.0).
"""

from enum import IntEnum, IntFlag
from struct import Struct

HEADER = Struct("!BBHII")  # version, type, flags, stream id, length
HEADER_SIZE = HEADER.size
VERSION = 0


class FrameType(IntEnum):
    """What a frame carries."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """What a frame says of its stream; any combination may ride on one frame."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(IntEnum):
    """Why a session ends."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def encode(frame_type: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the 12 bytes of a header."""
    return HEADER.pack(VERSION, frame_type, flags, stream_id, length)
