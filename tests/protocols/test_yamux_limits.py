"""What a peer may cost us: streams, answers it does not read; and how a session is wound up."""

from collections.abc import Callable

import pytest

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.yamux import (
    MAX_STREAMS,
    MAX_UNACKNOWLEDGED,
    ClientSession,
    GoAwayCode,
    GoAwayReceived,
    ServerSession,
    Session,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
)

from .wire import (
    ACK,
    FIN,
    INITIAL,
    MIB,
    PING,
    RST,
    SYN,
    Pair,
    client_with_stream,
    data,
    feed,
    frame,
    received,
    update,
)

PINGS = frame(PING, SYN, 0, 1) * 1000


def test_the_next_stream_is_refused_with_a_reset() -> None:
    session = ServerSession(0.0, max_streams=2)
    events = feed(session, update(1, flags=SYN) + update(3, flags=SYN) + update(5, flags=SYN))
    assert events == [StreamOpened(1), StreamOpened(3)]
    accepted = update(1, flags=ACK) + update(3, flags=ACK)
    assert session.outgoing() == accepted + update(5, flags=RST)
    assert session.open_streams == 2


def test_a_refused_opener_learns_of_it() -> None:
    pair = Pair(max_streams=1)
    first, second = pair.client.open_stream(0.0), pair.client.open_stream(0.0)
    assert pair.exchange() == ([StreamAcknowledged(first), StreamReset(second)], [StreamOpened(first)])
    assert (pair.client.open_streams, pair.client.streams_unacknowledged) == (1, 0)


def test_what_comes_on_a_refused_stream_is_dropped() -> None:
    session = ServerSession(0.0, max_streams=0)
    wire = data(1, b"early", SYN) + data(1, bytes(INITIAL + 1)) + update(1, 2**32 - 1) + update(1, flags=FIN)
    assert feed(session, wire + frame(PING, SYN, 0, 3)) == []
    assert session.outgoing() == update(1, flags=RST) + frame(PING, ACK, 0, 3)


def by_our_reset(session: Session) -> None:
    session.send_reset(1)


def by_the_peers_reset(session: Session) -> None:
    feed(session, update(1, flags=RST))


def by_two_fins(session: Session) -> None:
    session.send_fin(1)
    feed(session, update(1, flags=FIN))


@pytest.mark.parametrize("end", [by_our_reset, by_the_peers_reset, by_two_fins])
def test_a_stream_that_ends_makes_room_for_one(end: Callable[[Session], None]) -> None:
    session = ServerSession(0.0, max_streams=1)
    feed(session, update(1, flags=SYN))
    end(session)
    assert feed(session, update(3, flags=SYN) + update(5, flags=SYN)) == [StreamOpened(3)]


def test_a_half_closed_stream_still_counts() -> None:
    session = ServerSession(0.0, max_streams=1)
    feed(session, update(1, flags=SYN | FIN))
    assert feed(session, update(3, flags=SYN)) == []


def test_a_stream_that_has_ended_counts_until_it_is_read() -> None:
    session = ServerSession(0.0, max_streams=1)
    feed(session, data(1, b"unread", SYN | FIN))
    session.send_fin(1)
    assert session.open_streams == 0
    session.consumed(1, 5, 0.0)
    assert feed(session, update(3, flags=SYN)) == []
    session.consumed(1, 1, 0.0)
    assert feed(session, update(5, flags=SYN)) == [StreamOpened(5)]


def test_what_came_on_a_stream_that_has_ended_may_be_given_up() -> None:
    session = ServerSession(0.0, max_streams=1)
    feed(session, data(1, b"unread", SYN | FIN))
    session.send_fin(1)
    session.outgoing()
    session.send_reset(1)
    assert not session.queued
    assert feed(session, update(3, flags=SYN)) == [StreamOpened(3)]


def test_a_stream_that_has_ended_unread_is_not_opened_again() -> None:
    session = ServerSession(0.0)
    feed(session, data(1, b"unread", SYN | FIN))
    session.send_fin(1)
    with pytest.raises(RemoteProtocolError, match="twice"):
        feed(session, update(1, flags=SYN))


def test_our_own_streams_do_not_count_against_the_peer() -> None:
    session = ServerSession(0.0, max_streams=1)
    for _ in range(3):
        session.open_stream(0.0)
    assert feed(session, update(1, flags=SYN)) == [StreamOpened(1)]
    session.send_reset(2)
    assert feed(session, update(3, flags=SYN)) == []


def test_a_peer_may_open_as_many_streams_as_go_allows() -> None:
    session = ServerSession(0.0)
    wire = b"".join(update(stream_id, flags=SYN) for stream_id in range(1, 2 * MAX_STREAMS + 2, 2))
    assert len(feed(session, wire)) == MAX_STREAMS >= 1000


def test_no_more_streams_wait_for_an_ack_than_the_peers_backlog_holds() -> None:
    session = ClientSession(0.0)
    for _ in range(MAX_UNACKNOWLEDGED):
        session.open_stream(0.0)
    wire = session.outgoing()
    with pytest.raises(LocalProtocolError, match="ACK"):
        session.open_stream(0.0)
    assert MAX_UNACKNOWLEDGED == session.streams_unacknowledged == session.open_streams == 256
    assert len(wire) == 256 * 12
    assert not session.queued


def by_an_ack(session: Session) -> None:
    feed(session, update(1, flags=ACK))


@pytest.mark.parametrize("end", [by_an_ack, by_our_reset, by_the_peers_reset, by_two_fins])
def test_a_stream_that_is_acknowledged_or_ends_waits_no_more(end: Callable[[Session], None]) -> None:
    session = ClientSession(0.0)
    for _ in range(MAX_UNACKNOWLEDGED):
        session.open_stream(0.0)
    end(session)
    assert session.open_stream(0.0) == 2 * MAX_UNACKNOWLEDGED + 1
    with pytest.raises(LocalProtocolError):
        session.open_stream(0.0)


def test_the_end_of_an_acknowledged_stream_frees_nothing_twice() -> None:
    session = client_with_stream()
    session.open_stream(0.0)
    session.send_reset(1)
    assert session.streams_unacknowledged == 1


def test_a_session_that_goes_away_refuses_streams_and_lets_open_ones_finish() -> None:
    pair = Pair()
    stream = pair.open()
    pair.server.send_go_away()
    assert pair.exchange() == ([GoAwayReceived(0)], [])
    assert (pair.server.is_going_away, pair.client.peer_is_going_away) == (True, True)
    assert (pair.client.is_going_away, pair.server.peer_is_going_away) == (False, False)
    for session in (pair.client, pair.server):
        with pytest.raises(LocalProtocolError, match="no new streams"):
            session.open_stream(0.0)
    pair.client.send_data(stream, b"question")
    pair.client.send_fin(stream)
    pair.server.send_data(stream, b"answer")
    pair.server.send_fin(stream)
    client_saw, server_saw = pair.exchange()
    assert client_saw == [received(stream, b"answer"), StreamFinished(stream)]
    assert server_saw == [received(stream, b"question"), StreamFinished(stream)]
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_a_stream_that_crosses_our_go_away_is_refused() -> None:
    pair = Pair()
    pair.server.send_go_away()
    stream = pair.client.open_stream(0.0)
    pair.client.send_data(stream, b"hello")
    assert pair.exchange() == ([GoAwayReceived(0), StreamReset(stream)], [])
    assert pair.client.open_streams == 0


def test_both_ends_may_go_away() -> None:
    pair = Pair()
    pair.client.send_go_away(GoAwayCode.INTERNAL_ERROR)
    pair.server.send_go_away(GoAwayCode.PROTOCOL_ERROR)
    assert pair.exchange() == ([GoAwayReceived(1)], [GoAwayReceived(2)])


def test_a_session_goes_away_once() -> None:
    session = ServerSession(0.0)
    session.send_go_away()
    session.send_go_away(GoAwayCode.INTERNAL_ERROR)
    assert session.outgoing() == frame(3, 0, 0, 0)


def test_any_code_of_a_go_away_is_reported() -> None:
    assert feed(ClientSession(0.0), frame(3, 0, 0, 0xFFFFFFFF)) == [GoAwayReceived(0xFFFFFFFF)]


def test_every_ping_is_answered_with_its_value() -> None:
    session = ClientSession(0.0)
    assert feed(session, frame(PING, SYN, 0, 0xDEADBEEF) + frame(PING, SYN | ACK, 0, 0)) == []
    assert session.outgoing() == frame(PING, ACK, 0, 0xDEADBEEF) + frame(PING, ACK, 0, 0)


def test_a_peer_that_asks_without_reading_is_hostile() -> None:
    session = ServerSession(0.0)
    with pytest.raises(RemoteProtocolError, match="without reading"):
        for _ in range(100):
            feed(session, PINGS)
    assert MIB < len(session.outgoing()) <= MIB + len(PINGS)


def test_streams_that_are_refused_count_as_questions_too() -> None:
    session = ServerSession(0.0, max_streams=0)
    with pytest.raises(RemoteProtocolError, match="without reading"):
        for _ in range(100):
            feed(session, update(1, flags=SYN) * 1000)


def test_a_peer_that_reads_our_answers_may_ask_for_ever() -> None:
    session = ServerSession(0.0)
    for _ in range(200):
        feed(session, PINGS)
        assert len(session.outgoing()) == len(PINGS)


def test_what_we_send_ourselves_is_no_answer() -> None:
    session = client_with_stream()
    feed(session, update(1, 8 * MIB))
    session.send_data(1, bytes(2 * MIB))
    assert feed(session, PINGS * 80) == []
    assert len(session.outgoing()) > 2 * MIB + 80 * len(PINGS)
