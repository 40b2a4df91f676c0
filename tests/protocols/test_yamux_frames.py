"""Frames: what they look like on the wire, and what other implementations put there."""

from itertools import combinations
from struct import pack

import pytest
from libp2p.stream_muxer.yamux import yamux as library

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.yamux import (
    HEADER_SIZE,
    INITIAL_WINDOW,
    MAX_WINDOW,
    ClientSession,
    DataReceived,
    Event,
    Flag,
    FrameType,
    GoAwayCode,
    GoAwayReceived,
    ServerSession,
    Session,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
    encode,
)

from .wire import ACK, FIN, SYN, data, feed, frame, merged, received, server_with_stream, update

ALL_FLAGS = [sum(chosen) for size in range(5) for chosen in combinations((1, 2, 4, 8), size)]


def test_constants_are_those_of_the_library() -> None:
    assert (FrameType.DATA, FrameType.WINDOW_UPDATE) == (library.TYPE_DATA, library.TYPE_WINDOW_UPDATE)
    assert (FrameType.PING, FrameType.GO_AWAY) == (library.TYPE_PING, library.TYPE_GO_AWAY)
    assert (Flag.SYN, Flag.ACK) == (library.FLAG_SYN, library.FLAG_ACK)
    assert (Flag.FIN, Flag.RST) == (library.FLAG_FIN, library.FLAG_RST)
    assert (GoAwayCode.NORMAL, GoAwayCode.PROTOCOL_ERROR, GoAwayCode.INTERNAL_ERROR) == (0, 1, 2)
    assert (HEADER_SIZE, INITIAL_WINDOW) == (library.HEADER_SIZE, library.DEFAULT_WINDOW_SIZE)
    assert MAX_WINDOW == library.MAX_WINDOW_SIZE


@pytest.mark.parametrize("frame_type", list(FrameType))
@pytest.mark.parametrize("flags", ALL_FLAGS)
def test_a_header_is_packed_as_the_library_packs_it(frame_type: FrameType, flags: int) -> None:
    expected = pack(library.YAMUX_HEADER_FORMAT, 0, frame_type, flags, 0x01020304, 0xFFFFFFFE)
    assert encode(frame_type, Flag(flags), 0x01020304, 0xFFFFFFFE) == expected


# Recorded from go-yamux 5.1.0 and rust-yamux 0.13.10; each line is one write of theirs, pings are their first ones.
GO_CLIENT = """
    000200010000000000000000
    000100010000000100000000
    00000000000000010000000568656c6c6f
    000100040000000100000000
    000100010000000300000000
    0001000800000003ffffffff
    000300000000000000000000
"""
GO_SERVER = """
    000200010000000000000000
    000100020000000100000000
    00000000000000010000000777656c636f6d65
    000100040000000100000000
    000100020000000300000000
    000100040000000300000000
    000100020000000500000000
    000100080000000500000000
    000100020000000700000000
    000100000000000700020000
"""
RUST_CLIENT = """
    0002000100000000e305dd82
    00000001000000010000000568656c6c6f
    000000040000000100000000
    00000001000000030000000178
    000000080000000300000000
"""
RUST_SERVER = """
    00020001000000000fb4f2d9
    00000002000000010000000777656c636f6d65
    000000040000000100000000
    000000060000000300000000
    000000080000000500000000
    000300000000000000000001
"""


def test_a_go_client_opens_writes_finishes_and_resets() -> None:
    session = ServerSession(0.0)
    events = merged(feed(session, bytes.fromhex(GO_CLIENT)))
    assert events == [
        StreamOpened(1),
        received(1, b"hello"),
        StreamFinished(1),
        StreamOpened(3),
        StreamReset(3),  # with the error code 0xffffffff where a window update has its window
        GoAwayReceived(0),
    ]
    pong, accepted = frame(2, ACK, 0, 0), update(1, flags=ACK) + update(3, flags=ACK)
    assert session.outgoing() == pong + accepted


def test_a_go_server_accepts_writes_finishes_and_resets() -> None:
    session = ClientSession(0.0)
    for _ in range(4):
        session.open_stream(0.0)
    events = merged(feed(session, bytes.fromhex(GO_SERVER)))
    assert events == [
        StreamAcknowledged(1),
        received(1, b"welcome"),
        StreamFinished(1),
        StreamAcknowledged(3),
        StreamFinished(3),
        StreamAcknowledged(5),
        StreamReset(5),
        StreamAcknowledged(7),
    ]
    assert session.send_window(7) == INITIAL_WINDOW + 0x20000


def test_a_rust_client_opens_with_data_finishes_and_resets() -> None:
    events = merged(feed(ServerSession(0.0), bytes.fromhex(RUST_CLIENT)))
    first: list[Event] = [StreamOpened(1), received(1, b"hello"), StreamFinished(1)]
    assert events == [*first, StreamOpened(3), received(3, b"x"), StreamReset(3)]


def test_a_rust_server_acknowledges_with_data_with_fin_or_not_at_all() -> None:
    session = ClientSession(0.0)
    for _ in range(3):
        session.open_stream(0.0)
    events = merged(feed(session, bytes.fromhex(RUST_SERVER)))
    assert events == [
        StreamAcknowledged(1),
        received(1, b"welcome"),
        StreamFinished(1),
        StreamAcknowledged(3),
        StreamFinished(3),
        StreamReset(5),
        GoAwayReceived(1),
    ]


@pytest.mark.parametrize("role", [ClientSession, ServerSession])
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(0, 0, 0, 0, version=1), id="version 1"),
        pytest.param(frame(2, SYN, 0, 0, version=255), id="version 255"),
        pytest.param(frame(4, 0, 0, 0), id="type 4"),
        pytest.param(frame(255, 0, 0, 0), id="type 255"),
        pytest.param(frame(0, 16, 0, 0), id="flag 16"),
        pytest.param(frame(1, 0x8000, 0, 0), id="flag 32768"),
        pytest.param(frame(2, SYN | 0x100, 0, 0), id="SYN and flag 256"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", id="TLS"),
    ],
)
def test_an_unknown_frame_ends_the_session(role: type[Session], wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(role(0.0), wire)


def test_payload_is_reported_as_views_of_what_was_received() -> None:
    session = server_with_stream()
    wire = data(1, b"first") + data(1, b"second")
    events = feed(session, wire)
    assert events == [received(1, b"first"), received(1, b"second")]
    assert all(isinstance(event, DataReceived) and event.data.obj is wire for event in events)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_header_may_come_in_two_parts(cut: int) -> None:
    session = server_with_stream()
    wire = data(1, b"payload")
    assert feed(session, wire[:cut]) == []
    assert feed(session, wire[cut:] + update(1, flags=FIN)) == [received(1, b"payload"), StreamFinished(1)]


def test_a_header_may_come_byte_by_byte_behind_a_cut_payload() -> None:
    session = server_with_stream()
    wire = data(1, b"ab") + data(1, b"c", FIN)
    events = [event for at in range(len(wire)) for event in feed(session, wire[at : at + 1])]
    assert events == [received(1, b"a"), received(1, b"b"), received(1, b"c"), StreamFinished(1)]


def test_nothing_received_means_nothing() -> None:
    session = server_with_stream()
    assert feed(session, b"") == []
    assert not session.queued
