"""Receive windows: enforced, updated at half, grown by round trips under one cap, given back at the end."""

from collections.abc import Callable

import pytest

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.yamux import MAX_WINDOW, MEMORY_CAP, ServerSession, Session, StreamFinished

from .wire import ACK, FIN, INITIAL, MIB, RST, SYN, data, feed, frame, measure, server_with_stream, update

HALF, EIGHTH = INITIAL // 2, INITIAL // 8
ROUND_TRIP = 0.125  # seconds; no rounding


def granted(session: Session, stream_id: int) -> int:
    """Return what the session grants the peer on one stream now, in bytes."""
    wire = session.outgoing()
    if not wire:
        return 0
    credit = int.from_bytes(wire[-4:], "big")
    assert wire == update(stream_id, credit)
    return credit


def carry(session: Session, stream_id: int, size: int, now: float) -> int:
    """Let the peer send `size` bytes that are consumed at once; return what it was granted for them."""
    feed(session, data(stream_id, bytes(size)), now)
    session.consumed(stream_id, size, now)
    return granted(session, stream_id)


def grow(session: Session, stream_id: int, now: float, size: int = INITIAL) -> int:
    """Consume whole windows, of which the first has a size in bytes, as fast as can be; return the size at which growth ends."""
    grown = 1
    while grown:
        grown = carry(session, stream_id, size, now) - size
        size += grown
    return size


def fast_session(streams: int = 1) -> Session:
    """Return a session with a measured round trip and streams 1, 3, 5 ... opened by the peer at 0 seconds."""
    session = ServerSession(-1.0)
    measure(session, ROUND_TRIP, -1.0)
    for number in range(streams):
        feed(session, update(2 * number + 1, flags=SYN))
    session.outgoing()
    return session


def test_a_peer_may_fill_the_window_to_the_last_byte() -> None:
    session = server_with_stream()
    feed(session, data(1, bytes(INITIAL - 1)) + data(1, b"x"))
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(1, b"x"))


@pytest.mark.parametrize(
    "wire", [frame(0, 0, 1, INITIAL + 1), frame(0, FIN, 1, 2**32 - 1), frame(0, RST, 1, 2**31)]
)
def test_a_header_is_enough_to_overrun_a_window(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(server_with_stream(), wire)


def test_the_first_frame_of_a_stream_is_held_to_the_window_too() -> None:
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(ServerSession(0.0), frame(0, SYN, 1, INITIAL + 1))


def test_bytes_that_are_not_consumed_grant_nothing() -> None:
    session = server_with_stream()
    feed(session, data(1, bytes(INITIAL)))
    session.consumed(1, EIGHTH - 1, 9.0)
    assert granted(session, 1) == 0
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(1, b"x"))


def test_an_eighth_of_a_window_consumed_is_granted_at_once_and_whole() -> None:
    session = fast_session()
    feed(session, data(1, bytes(INITIAL)))
    session.consumed(1, EIGHTH - 1, 9.0)
    session.consumed(1, 1, 9.0)
    assert granted(session, 1) == EIGHTH
    session.consumed(1, 7 * EIGHTH, 18.0)
    assert granted(session, 1) == 7 * EIGHTH
    feed(session, data(1, bytes(INITIAL)), 18.0)
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(1, b"x"))


def test_growth_is_thought_of_at_half_a_window() -> None:
    session = fast_session()
    assert [carry(session, 1, EIGHTH, 0.0) for _ in range(5)] == [*[EIGHTH] * 3, EIGHTH + INITIAL, 0]


def test_a_window_that_limits_the_peer_doubles() -> None:
    session = fast_session()
    assert carry(session, 1, HALF, 2 * ROUND_TRIP) == HALF + INITIAL
    feed(session, data(1, bytes(2 * INITIAL)), 1.0)
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(1, b"x"))


def test_a_window_that_does_not_limit_the_peer_stays() -> None:
    session = fast_session()
    assert carry(session, 1, HALF, 2 * ROUND_TRIP + 0.001) == HALF


@pytest.mark.parametrize(("elapsed", "grown"), [(4 * ROUND_TRIP, INITIAL), (4 * ROUND_TRIP + 0.001, 0)])
def test_a_window_that_is_smaller_than_another_has_twice_the_time(elapsed: float, grown: int) -> None:
    session = fast_session(streams=2)
    assert carry(session, 1, HALF, 0.0) == HALF + INITIAL
    assert carry(session, 3, HALF, elapsed) == HALF + grown


def test_a_window_is_no_longer_smaller_when_all_others_have_ended() -> None:
    session = fast_session(streams=2)
    assert carry(session, 1, HALF, 0.0) == HALF + INITIAL
    end_by_our_reset(session)
    session.outgoing()
    assert carry(session, 3, HALF, 4 * ROUND_TRIP) == HALF


def test_time_counts_from_the_last_update() -> None:
    session = fast_session()
    assert carry(session, 1, HALF, 100.0) == HALF
    assert carry(session, 1, HALF, 100.0 + 2 * ROUND_TRIP) == HALF + INITIAL
    assert carry(session, 1, INITIAL, 200.0) == INITIAL


def test_time_counts_from_the_opening_of_a_stream() -> None:
    session = fast_session()
    feed(session, update(3, flags=SYN), 50.0)
    session.outgoing()
    assert carry(session, 3, HALF, 50.0 + 2 * ROUND_TRIP) == HALF + INITIAL
    assert session.open_stream(70.0) == 2
    assert session.outgoing() == update(2, flags=SYN)
    assert carry(session, 2, HALF, 70.0 + 2 * ROUND_TRIP) == HALF + INITIAL


@pytest.mark.parametrize(("elapsed", "grows"), [(0.0, True), (0.002, True), (0.0021, False)])
def test_a_round_trip_counts_as_a_millisecond_at_least(elapsed: float, grows: bool) -> None:
    session = ServerSession(-1.0)
    measure(session, 0.0, -1.0)
    feed(session, update(1, flags=SYN))
    session.outgoing()
    assert carry(session, 1, HALF, elapsed) == HALF + grows * INITIAL


def test_a_window_grows_before_the_first_round_trip_is_known() -> None:
    assert carry(server_with_stream(), 1, HALF, 60.0) == HALF + INITIAL


def test_the_last_round_trip_counts() -> None:
    session = fast_session()
    now = measure(session, 1.0, 10.0)
    assert carry(session, 1, HALF, now) == HALF
    assert carry(session, 1, HALF, now + 2.0) == HALF + INITIAL


def test_a_window_grows_to_16_mib_and_no_further() -> None:
    session = fast_session()
    assert grow(session, 1, 0.0) == MAX_WINDOW == 16 * MIB
    feed(session, data(1, bytes(MAX_WINDOW)))
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(1, b"x"))


def test_all_windows_grow_under_one_cap_and_none_is_less_than_the_spec_says() -> None:
    session = fast_session(streams=4)
    sizes = [grow(session, stream_id, 0.0) for stream_id in (1, 3, 5, 7)]
    assert sizes == [MAX_WINDOW, MAX_WINDOW, 2 * INITIAL, 2 * INITIAL]
    assert sum(sizes) == 4 * INITIAL + MEMORY_CAP
    assert carry(session, 7, INITIAL, 0.0) == INITIAL
    feed(session, data(9, bytes(INITIAL), SYN))
    with pytest.raises(RemoteProtocolError, match="overran"):
        feed(session, data(9, b"x"))


def end_by_our_reset(session: Session) -> None:
    session.send_reset(1)


def end_by_the_peers_reset(session: Session) -> None:
    feed(session, update(1, flags=RST))


def end_by_two_fins(session: Session) -> None:
    feed(session, update(1, flags=FIN))
    session.send_fin(1)


@pytest.mark.parametrize("end", [end_by_our_reset, end_by_the_peers_reset, end_by_two_fins])
def test_a_stream_that_ends_gives_its_growth_back(end: Callable[[Session], None]) -> None:
    session = fast_session(streams=4)
    for stream_id in (1, 3, 5, 7):
        grow(session, stream_id, 0.0)
    assert carry(session, 7, INITIAL, 0.0) == INITIAL
    end(session)
    session.outgoing()
    assert grow(session, 7, 0.0, 2 * INITIAL) == MAX_WINDOW
    feed(session, update(9, flags=SYN))
    session.outgoing()
    assert grow(session, 9, 0.0) == 2 * INITIAL  # no more was given back than the one window had grown


def test_a_large_window_gives_back_half_where_a_smaller_one_finds_no_room() -> None:
    session = fast_session(streams=3)
    assert [grow(session, stream_id, 0.0) for stream_id in (1, 3)] == [MAX_WINDOW, MAX_WINDOW]
    half = MAX_WINDOW // 2
    assert carry(session, 1, half, 0.0) == half
    assert grow(session, 5, 0.0) == 2 * INITIAL
    assert carry(session, 1, half, 0.0) == 0  # the peer has as much left
    assert carry(session, 3, half, 0.0) == half  # there is room now
    assert carry(session, 1, half // 2, 0.0) == half // 2  # and not for those who have more
    assert grow(session, 5, 0.0, 2 * INITIAL) == half + INITIAL


def test_what_one_stream_has_needed_the_next_ones_get_at_once_within_a_quarter_of_what_is_left() -> None:
    session = fast_session(streams=3)
    assert grow(session, 1, 0.0) == MAX_WINDOW
    end_by_our_reset(session)
    session.outgoing()
    assert carry(session, 3, HALF, 0.0) == HALF + MEMORY_CAP // 4 - INITIAL
    assert carry(session, 5, HALF, 0.0) == HALF + (MEMORY_CAP - MEMORY_CAP // 4 + INITIAL) // 4 - INITIAL


def test_a_finished_peer_is_granted_nothing_and_a_finished_stream_still_reads() -> None:
    session = fast_session(streams=2)
    feed(session, data(1, bytes(INITIAL)) + data(3, bytes(INITIAL), FIN))
    session.send_fin(1)
    session.outgoing()
    session.consumed(1, INITIAL, 9.0)
    assert granted(session, 1) == INITIAL
    session.consumed(3, INITIAL, 9.0)
    assert granted(session, 3) == 0


def test_bytes_consumed_after_the_end_grant_nothing() -> None:
    session = fast_session()
    feed(session, data(1, bytes(INITIAL)))
    session.send_reset(1)
    session.outgoing()
    session.consumed(1, INITIAL, 0.0)
    assert not session.queued


def test_a_frame_for_a_stream_that_ended_may_be_of_any_size() -> None:
    session = server_with_stream()
    session.send_reset(1)
    assert feed(session, frame(0, ACK, 1, 2**32 - 1)) == []
    chunk = bytes(MIB)
    for _ in range(4095):
        assert feed(session, chunk) == []
    assert feed(session, chunk[:-1] + data(3, b"", SYN | FIN))[1:] == [StreamFinished(3)]
