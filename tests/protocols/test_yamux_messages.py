"""Bulk beside messages: what is in flight stays under a ceiling while they come, and nobody starves of it."""

import pytest

from peertunnel.protocols.yamux import ServerSession, Session
from peertunnel.protocols.yamux.window import CEILING, CEILING_RATE, HOLD, MESSAGE, MESSAGES

from .test_yamux_windows import carry, granted, grow
from .wire import SYN, data, feed, measure, update

BULK, OTHER = 1, 3
STEP = CEILING // 8


def session_with_bulk(round_trip: float = 0.001) -> tuple[Session, int]:
    """Return a session with a window that has grown, and that window's size in bytes."""
    session = ServerSession(-10.0)
    measure(session, round_trip, -10.0)
    feed(session, update(BULK, flags=SYN) + update(OTHER, flags=SYN))
    session.outgoing()
    return session, grow(session, BULK, 0.0)


def exchange(session: Session, count: int, now: float, size: int = 1) -> None:
    """Let the peer send messages, each in a frame of its own and consumed at once."""
    for _ in range(count):
        feed(session, data(OTHER, bytes(size)), now)
        session.consumed(OTHER, size, now)


def flow(session: Session, left: int, now: float) -> list[int]:
    """Take all that the peer may still send, step by step; return what it was granted, without the zeroes."""
    found = []
    while left:
        grant = carry(session, BULK, min(left, STEP // 4), now)
        left -= STEP // 4
        if grant:
            found.append(grant)
    return found


def test_beside_messages_a_window_is_opened_only_up_to_the_ceiling_and_in_steps() -> None:
    session, size = session_with_bulk()
    exchange(session, MESSAGES + 1, 1.0)
    assert session.expects_messages(1.0)
    grants = flow(session, size, 1.0)
    assert set(grants) == {STEP}
    assert sum(grants) == CEILING  # so much is in flight now, and no more
    assert set(flow(session, CEILING, 1.0)) == {STEP}


@pytest.mark.parametrize("waiting", [1.0, 1.0 + HOLD])
def test_a_sender_that_has_used_everything_up_is_granted_more(waiting: float) -> None:
    session, size = session_with_bulk()
    feed(session, data(BULK, bytes(size)), 1.0)
    exchange(session, MESSAGES + 1, 1.0)
    session.consumed(BULK, size, waiting)
    assert granted(session, BULK) == (CEILING if waiting == 1.0 else size)


def test_the_whole_window_is_opened_again_when_no_messages_come() -> None:
    session, size = session_with_bulk()
    exchange(session, MESSAGES + 1, 1.0)
    flow(session, size, 1.0)
    assert not session.expects_messages(1.0 + HOLD)
    assert carry(session, BULK, 1, 1.0 + HOLD) == size - CEILING + 1


@pytest.mark.parametrize(("size", "expected"), [(MESSAGE, True), (MESSAGE + 1, False)])
def test_only_small_frames_are_messages(size: int, expected: bool) -> None:
    session, _ = session_with_bulk()
    exchange(session, MESSAGES + 1, 1.0, size)
    assert session.expects_messages(1.0) is expected


def test_bulk_with_small_frames_in_front_and_in_between_is_not_messages() -> None:
    session, size = session_with_bulk()
    for _ in range(3):
        exchange(session, MESSAGES, 1.0)
        exchange(session, 1, 1.0, MESSAGE + 1)
    assert not session.expects_messages(1.0)
    assert flow(session, size, 1.0)[0] == size // 8


def test_a_long_way_has_room_for_what_it_holds() -> None:
    round_trip = 1 / 64  # seconds; no rounding
    session, size = session_with_bulk(round_trip)
    exchange(session, MESSAGES + 1, 1.0)
    assert sum(flow(session, size, 1.0)) == round_trip * CEILING_RATE == 8 * CEILING


@pytest.mark.parametrize(("later", "ceiling"), [(5, CEILING), (6, 4 * CEILING)])
def test_the_smallest_of_the_last_six_round_trips_counts(later: int, ceiling: int) -> None:
    session, size = session_with_bulk()
    now = 0.0
    for _ in range(later):
        now = measure(session, 1 / 128, now)
    exchange(session, MESSAGES + 1, now)
    assert sum(flow(session, size, now)) == ceiling


def test_there_is_no_ceiling_before_the_first_round_trip_is_known() -> None:
    session = ServerSession(0.0)
    feed(session, update(BULK, flags=SYN) + update(OTHER, flags=SYN))
    session.outgoing()
    size = grow(session, BULK, 0.0)
    exchange(session, MESSAGES + 1, 1.0)
    assert carry(session, BULK, size // 2, 1.0) == size // 2
