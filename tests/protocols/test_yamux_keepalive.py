"""Keepalive on a clock moved by hand: a silent peer is dead within 15 seconds, a living one never."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.yamux import ClientSession, PeerTimedOut, PingAnswered, ServerSession, Session

from .wire import ACK, PING, SYN, Pair, data, feed, frame, update

PATIENCE = 15.0  # seconds; what is promised


def ping_of(session: Session) -> int | None:
    """Return the value of the ping that the session sends, None if it sends nothing."""
    wire = session.outgoing()
    if not wire:
        return None
    value = int.from_bytes(wire[8:], "big")
    assert wire == frame(PING, SYN, 0, value)
    return value


def pong(value: int | None) -> bytes:
    """Return the answer to a ping."""
    assert value is not None
    return frame(PING, ACK, 0, value)


def settled(now: float = 0.0) -> Session:
    """Return a session whose first ping has been answered."""
    session = ClientSession(now)
    assert session.deadline() == now
    session.tick(now)
    feed(session, pong(ping_of(session)), now)
    return session


def time_of_death(session: Session) -> float:
    """Tick at every deadline until the session gives its peer up; return when it did."""
    for _ in range(10):
        now = session.deadline()
        if session.tick(now) == [PeerTimedOut()]:
            return now
    raise AssertionError("it never died")


def test_a_session_measures_the_round_trip_as_it_starts() -> None:
    session = ServerSession(100.0)
    assert session.deadline() == 100.0
    assert session.tick(100.0) == []
    value = ping_of(session)
    assert feed(session, pong(value), 100.5) == [PingAnswered(0.5)]


def test_a_round_trip_is_measured_across_the_wire() -> None:
    pair = Pair()
    pair.client.tick(0.0)
    assert pair.exchange(delay=0.25) == ([PingAnswered(0.5)], [])


def test_a_tick_before_the_deadline_does_nothing() -> None:
    session = settled()
    assert session.deadline() == 5.0
    assert session.tick(4.999) == []
    assert not session.queued
    session.tick(5.0)
    assert ping_of(session) is not None
    assert session.deadline() == 13.0
    assert session.tick(12.999) == []
    assert not session.queued
    assert session.tick(13.0) == [PeerTimedOut()]


def test_a_dead_peer_stays_dead() -> None:
    session = settled()
    death = time_of_death(session)
    assert session.tick(death + 1) == session.tick(death + 100) == [PeerTimedOut()]


def test_a_peer_that_never_says_anything_is_dead_in_time() -> None:
    assert 0 < time_of_death(ClientSession(0.0)) <= PATIENCE


def hears_an_empty_frame(session: Session, now: float) -> None:
    feed(session, data(0), now)


def hears_half_a_header(session: Session, now: float) -> None:
    feed(session, update(0)[:5], now)


def hears_that_its_bytes_were_taken(session: Session, now: float) -> None:
    session.heard(now)


SIGNS = [hears_an_empty_frame, hears_half_a_header, hears_that_its_bytes_were_taken]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("at", [0.0, 2.0, 4.75, 5.25, 9.75, 10.25, 12.75])
def test_silence_after_any_sign_of_life_is_noticed_in_time(
    sign: Callable[[Session, float], None], at: float
) -> None:
    session = settled()
    while session.deadline() < at:
        assert session.tick(session.deadline()) == []
    sign(session, at)
    assert 8.0 <= time_of_death(session) - at <= 13.0 < PATIENCE


@pytest.mark.parametrize("sign", SIGNS)
def test_signs_of_life_put_off_death_without_an_answer(sign: Callable[[Session, float], None]) -> None:
    session = settled()
    session.tick(5.0)
    for now in range(5, 1000, 7):
        sign(session, float(now))
        assert session.tick(now + 6.9) == []


def test_a_busy_session_measures_every_ten_seconds() -> None:
    session = settled()
    pings: list[float] = []
    for tenth in range(1, 1001):
        now = tenth / 10
        feed(session, data(0), now)
        assert session.tick(now) == []
        value = ping_of(session)
        if value is not None:
            pings.append(now)
            feed(session, pong(value), now)
    assert pings == [10.0 * n for n in range(1, 11)]


def test_an_idle_session_pings_every_five_seconds() -> None:
    session = settled()
    pings: list[float] = []
    while len(pings) < 5:
        now = session.deadline()
        session.tick(now)
        pings.append(now)
        feed(session, pong(ping_of(session)), now)
    assert pings == [5.0, 10.0, 15.0, 20.0, 25.0]


@given(st.lists(st.floats(0.0, 7.99), min_size=1, max_size=30))
def test_a_peer_that_answers_is_never_dead(delays: list[float]) -> None:
    session = ServerSession(0.0)
    for delay in delays:
        now = session.deadline()
        assert session.tick(now) == []
        value = ping_of(session)
        answered = now + delay
        while session.deadline() < answered:
            assert session.tick(session.deadline()) == []
        (event,) = feed(session, pong(value), answered)
        assert isinstance(event, PingAnswered)
        assert event.round_trip == answered - now


def test_only_the_answer_to_the_last_ping_counts() -> None:
    session = settled()
    assert feed(session, pong(1), 1.0) == []
    session.tick(6.0)
    value = ping_of(session)
    assert value is not None
    assert feed(session, pong(value + 1) + pong(value - 1), 6.125) == []
    assert feed(session, pong(value) + pong(value), 6.25) == [PingAnswered(0.25)]


def test_an_answer_without_flags_is_one_too() -> None:
    session = ClientSession(0.0)
    session.tick(0.0)
    value = ping_of(session)
    assert value is not None
    assert feed(session, frame(PING, 0, 0, value), 0.5) == [PingAnswered(0.5)]


def test_a_ping_may_be_sent_early_but_not_twice_at_a_time() -> None:
    session = settled()
    session.send_ping(1.0)
    first = ping_of(session)
    session.send_ping(2.0)
    assert ping_of(session) is None
    assert feed(session, pong(first), 3.0) == [PingAnswered(2.0)]
    session.send_ping(3.0)
    assert ping_of(session) not in (None, first)


def test_a_session_knows_whether_a_ping_is_unanswered() -> None:
    session = settled()
    assert not session.awaits_pong
    session.tick(session.deadline())
    assert session.awaits_pong
    feed(session, pong(ping_of(session)), 5.5)
    assert not session.awaits_pong
