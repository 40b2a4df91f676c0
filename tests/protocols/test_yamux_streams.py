"""The life of a stream: every flag on every frame in every state, half-close, aborts, and ids that mean nothing."""

from collections.abc import Callable
from itertools import product

import pytest

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.yamux import (
    ClientSession,
    Event,
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
    RST,
    SYN,
    Pair,
    client_with_stream,
    data,
    feed,
    frame,
    received,
    server_with_stream,
    update,
)

CARRIERS: dict[str, Callable[[int, int], bytes]] = {
    "data": lambda stream_id, flags: data(stream_id, b"payload", flags),
    "empty data": lambda stream_id, flags: data(stream_id, b"", flags),
    "update": lambda stream_id, flags: update(stream_id, 1000, flags),
    "empty update": lambda stream_id, flags: update(stream_id, 0, flags),
}
FLAGS = [0, FIN, RST, FIN | RST, ACK, ACK | FIN, ACK | RST, ACK | FIN | RST]

# What FIN and RST mean in each state; True where the stream is open afterwards.
FINISHED, RESET = StreamFinished(1), StreamReset(1)
TABLE: dict[str, dict[int, tuple[list[Event], bool]]] = {
    "open": {0: ([], True), FIN: ([FINISHED], True), RST: ([RESET], False), FIN | RST: ([RESET], False)},
    "we finished": {
        0: ([], True),
        FIN: ([FINISHED], False),
        RST: ([RESET], False),
        FIN | RST: ([RESET], False),
    },
    "peer finished": {0: ([], True), FIN: ([], True), RST: ([RESET], False), FIN | RST: ([RESET], False)},
    "both finished": {0: ([], False), FIN: ([], False), RST: ([], False), FIN | RST: ([], False)},
    "we reset": {0: ([], False), FIN: ([], False), RST: ([], False), FIN | RST: ([], False)},
    "peer reset": {0: ([], False), FIN: ([], False), RST: ([], False), FIN | RST: ([], False)},
}


def bring_to(state: str, session: Session) -> Session:
    """Bring stream 1 of a session into a state."""
    if state in ("we finished", "both finished"):
        session.send_fin(1)
    if state in ("peer finished", "both finished"):
        assert feed(session, update(1, flags=FIN)) == [FINISHED]
    if state == "we reset":
        session.send_reset(1)
    if state == "peer reset":
        assert feed(session, update(1, flags=RST)) == [RESET]
    session.outgoing()
    return session


@pytest.mark.parametrize("opener", [client_with_stream, server_with_stream])
@pytest.mark.parametrize(("state", "carrier", "flags"), list(product(TABLE, CARRIERS, FLAGS)))
def test_every_flag_on_every_frame_in_every_state(
    opener: Callable[[], Session], state: str, carrier: str, flags: int
) -> None:
    session = bring_to(state, opener())
    expected, stays_open = TABLE[state][flags & ~ACK]
    answer = b""
    if carrier == "data" and state in ("open", "we finished"):
        expected = [received(1, b"payload"), *expected]
    if carrier == "data" and state == "peer finished":  # data behind the end: an abort, not a longer stream
        expected, stays_open, answer = [RESET], False, update(1, flags=RST)
    assert feed(session, CARRIERS[carrier](1, flags)) == expected
    assert session.open_streams == stays_open
    assert session.outgoing() == answer
    assert feed(session, frame(2, SYN, 0, 7)) == []  # the next frame is read from where it starts
    assert session.outgoing() == frame(2, ACK, 0, 7)


@pytest.mark.parametrize(("carrier", "flags"), list(product(CARRIERS, FLAGS)))
def test_any_flag_may_come_with_the_syn(carrier: str, flags: int) -> None:
    session = ServerSession(0.0)
    expected, stays_open = TABLE["open"][flags & ~ACK]
    payload = [received(1, b"payload")] if carrier == "data" else []
    assert feed(session, CARRIERS[carrier](1, SYN | flags)) == [StreamOpened(1), *payload, *expected]
    assert session.open_streams == stays_open
    assert session.outgoing() == update(1, flags=ACK)
    assert session.send_window(1) == (0 if not stays_open else INITIAL + 1000 * (carrier == "update"))


@pytest.mark.parametrize(("carrier", "flags"), list(product(CARRIERS, FLAGS)))
def test_any_flag_may_come_with_the_ack(carrier: str, flags: int) -> None:
    session = ClientSession(0.0)
    assert session.open_stream(0.0) == 1
    assert session.outgoing() == update(1, flags=SYN)
    expected, stays_open = TABLE["open"][flags & ~ACK]
    payload = [received(1, b"payload")] if carrier == "data" else []
    acknowledged = [StreamAcknowledged(1)] if flags & ACK else []
    assert feed(session, CARRIERS[carrier](1, flags)) == [*acknowledged, *payload, *expected]
    assert session.open_streams == stays_open
    assert session.streams_unacknowledged == (stays_open and not flags & ACK)


def test_a_second_ack_says_nothing_new() -> None:
    session = client_with_stream()
    assert feed(session, update(1, flags=ACK) + data(1, b"", ACK)) == []
    assert session.streams_unacknowledged == 0


def test_both_ends_open_streams_with_their_own_ids() -> None:
    pair = Pair()
    assert [pair.client.open_stream(0.0) for _ in range(3)] == [1, 3, 5]
    assert [pair.server.open_stream(0.0) for _ in range(2)] == [2, 4]
    client_saw, server_saw = pair.exchange()
    assert server_saw == [*map(StreamOpened, (1, 3, 5)), StreamAcknowledged(2), StreamAcknowledged(4)]
    assert client_saw == [*map(StreamOpened, (2, 4)), *map(StreamAcknowledged, (1, 3, 5))]
    assert pair.client.open_streams == pair.server.open_streams == 5


def test_half_closed_streams_carry_data_the_other_way() -> None:
    pair = Pair()
    stream = pair.open()
    pair.client.send_data(stream, b"question")
    pair.client.send_fin(stream)
    assert pair.exchange() == ([], [received(stream, b"question"), StreamFinished(stream)])
    pair.server.send_data(stream, b"answer")
    pair.server.send_fin(stream)
    assert pair.exchange() == ([received(stream, b"answer"), StreamFinished(stream)], [])
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_both_ends_may_finish_at_the_same_time() -> None:
    pair = Pair()
    stream = pair.open()
    pair.client.send_fin(stream)
    pair.server.send_fin(stream)
    assert pair.exchange() == ([StreamFinished(stream)], [StreamFinished(stream)])
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_data_comes_before_the_end_that_rides_on_it() -> None:
    session = server_with_stream()
    wire = data(1, b"last words", FIN)
    assert feed(session, wire[:15]) == [received(1, b"las")]
    assert feed(session, wire[15:]) == [received(1, b"t words"), StreamFinished(1)]


def test_an_abort_is_never_an_end() -> None:
    pair = Pair()
    stream = pair.open()
    pair.client.send_data(stream, b"half of it")
    pair.client.send_reset(stream)
    assert pair.exchange() == ([], [received(stream, b"half of it"), StreamReset(stream)])
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_resets_may_cross() -> None:
    pair = Pair()
    stream = pair.open()
    pair.client.send_reset(stream)
    pair.server.send_reset(stream)
    assert pair.exchange() == ([], [])


def test_a_stream_that_we_reset_swallows_what_is_under_way() -> None:
    session = server_with_stream()
    wire = data(1, b"cut short", FIN) + update(1, flags=RST) + data(1, b"more") + update(3, flags=SYN)
    assert feed(session, wire[:16]) == [received(1, b"cut ")]
    session.send_reset(1)
    assert feed(session, wire[16:]) == [StreamOpened(3)]


def test_finishing_and_resetting_twice_sends_once() -> None:
    session = server_with_stream()
    session.send_fin(1)
    session.send_fin(1)
    session.send_reset(1)
    session.send_reset(1)
    session.send_fin(1)
    assert session.outgoing() == update(1, flags=FIN) + update(1, flags=RST)


@pytest.mark.parametrize("state", ["we finished", "both finished", "we reset", "peer reset"])
def test_nothing_is_sent_on_a_stream_closed_for_sending(state: str) -> None:
    session = bring_to(state, client_with_stream())
    assert session.send_window(1) == 0
    with pytest.raises(LocalProtocolError):
        session.send_data(1, b"late")
    with pytest.raises(LocalProtocolError):
        session.frame_in_place(1, memoryview(bytearray(100)), 4)
    assert not session.queued


@pytest.mark.parametrize("state", ["open", "peer finished"])
def test_data_is_sent_while_our_side_is_open(state: str) -> None:
    session = bring_to(state, client_with_stream())
    session.send_data(1, b"in time")
    assert session.outgoing() == data(1, b"in time")


@pytest.mark.parametrize("stream_id", [1, 3, 99, 2**32 - 1])
def test_unknown_streams_of_the_peer_count_for_nothing(stream_id: int) -> None:
    session = ServerSession(0.0)
    wire = (
        data(stream_id, b"x", ACK)
        + update(stream_id, 5)
        + data(stream_id, b"y", FIN)
        + update(stream_id, 0, RST)
    )
    assert feed(session, wire) == []
    assert not session.queued


def test_the_session_itself_takes_no_data() -> None:
    for session in (ServerSession(0.0), ClientSession(0.0)):
        assert feed(session, data(0, b"x") + update(0, 5) + update(0, flags=RST)) == []
        assert not session.queued


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(("role", "never_opened"), [(ClientSession, 3), (ServerSession, 4)])
def test_a_stream_that_we_never_opened_is_an_error(
    carrier: str, role: type[Session], never_opened: int
) -> None:
    session = role(0.0)
    session.open_stream(0.0)
    with pytest.raises(RemoteProtocolError, match="never opened"):
        feed(session, CARRIERS[carrier](never_opened, 0))


@pytest.mark.parametrize(("role", "ids"), [(ClientSession, (0, 1, 3)), (ServerSession, (0, 2, 4))])
def test_a_peer_opens_no_streams_with_our_ids(role: type[Session], ids: tuple[int, ...]) -> None:
    for stream_id in ids:
        session = role(0.0)
        session.open_stream(0.0)
        with pytest.raises(RemoteProtocolError, match="ours to open"):
            feed(session, update(stream_id, flags=SYN))


def test_an_open_stream_is_not_opened_again() -> None:
    session = server_with_stream()
    with pytest.raises(RemoteProtocolError, match="twice"):
        feed(session, update(1, flags=SYN))


def test_an_id_may_be_used_again_once_its_stream_has_ended() -> None:
    session = bring_to("both finished", server_with_stream())
    assert feed(session, data(1, b"again", SYN)) == [StreamOpened(1), received(1, b"again")]
