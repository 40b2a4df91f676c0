"""Any cut of the bytes gives the same events; any bytes give events or RemoteProtocolError, never anything else."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.yamux import ClientSession, Event, ServerSession, Session

from .wire import ACK, DATA, FIN, GO_AWAY, INITIAL, PING, RST, SYN, UPDATE, cut, feed, frame, merged

IDS = range(8)
ROLES: list[type[Session]] = [ClientSession, ServerSession]


def write(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Write a frame with the payload that its length claims."""
    return frame(kind, flags, stream_id, length, bytes(range(length)) if kind == DATA else b"")


@st.composite
def conversations(draw: st.DrawFn, role: type[Session]) -> bytes:
    """Return what a well-behaved peer of a session of ours may say, after three streams of ours."""
    ours, theirs = (1, 2) if role is ClientSession else (2, 1)
    unopened = {theirs, theirs + 2, theirs + 4}
    streams = [*unopened, ours, ours + 2, ours + 4]
    wire = b""
    for _ in range(draw(st.integers(0, 30))):
        stream_id, flags = (
            draw(st.sampled_from(streams)),
            draw(st.sampled_from([0, 0, 0, 0, ACK, FIN, ACK | FIN, RST])),
        )
        if stream_id in unopened:
            unopened.remove(stream_id)
            flags |= SYN
        wire += write(draw(st.sampled_from([DATA, DATA, UPDATE])), flags, stream_id, draw(st.integers(0, 40)))
        wire += draw(
            st.sampled_from(
                [b"", b"", frame(PING, SYN, 0, 7), frame(PING, ACK, 0, 7), frame(GO_AWAY, 0, 0, 0)]
            )
        )
    return wire


any_id, any_kind = st.sampled_from(IDS), st.integers(0, 4)
hostilities = st.lists(
    st.one_of(
        st.builds(
            write,
            st.sampled_from([DATA, UPDATE]),
            st.sampled_from([0, 1, 2, 4, 8, 5]),
            any_id,
            st.integers(0, 40),
        ),
        st.builds(write, any_kind, st.integers(0, 17), any_id, st.integers(0, 40)),
        st.builds(frame, any_kind, st.integers(0, 15), any_id, st.integers(0, 2**32 - 1)),
        st.builds(frame, st.just(DATA), st.just(SYN), any_id, st.integers(INITIAL - 1, INITIAL + 1)),
        st.binary(max_size=30),
    ),
    max_size=30,
).map(b"".join)


@dataclass
class Outcome:
    """All that can be told of a session after it has received some bytes."""

    events: list[Event]
    answers: bytes
    windows: list[int]
    streams: tuple[int, int]
    is_broken: bool


def outcome(role: type[Session], parts: list[bytes]) -> Outcome:
    """Feed a session that has opened three streams and finished one of them."""
    session = role(0.0, max_streams=3)
    ours = [session.open_stream(0.0) for _ in range(3)]
    session.send_fin(ours[0])
    session.outgoing()
    events: list[Event] = []
    answers = b""
    try:
        for part in parts:
            events += merged(feed(session, part))
            answers += session.outgoing()
    except RemoteProtocolError:
        return Outcome([], b"", [], (0, 0), True)
    windows = [session.send_window(stream_id) for stream_id in IDS]
    return Outcome(
        merged(events), answers, windows, (session.open_streams, session.streams_unacknowledged), False
    )


@pytest.mark.parametrize("role", ROLES)
@given(talk=st.data(), cuts=st.lists(st.integers(0, 600), max_size=12))
def test_a_conversation_may_be_cut_anywhere(
    role: type[Session], talk: st.DataObject, cuts: list[int]
) -> None:
    wire = talk.draw(conversations(role))
    result = outcome(role, cut(wire, cuts))
    assert result == outcome(role, [wire])
    assert not result.is_broken


@pytest.mark.parametrize("role", ROLES)
@given(wire=hostilities)
def test_any_bytes_may_come_one_by_one(role: type[Session], wire: bytes) -> None:
    assert outcome(role, cut(wire, range(len(wire)))) == outcome(role, [wire])


@pytest.mark.parametrize("role", ROLES)
@given(parts=st.lists(st.binary(max_size=100), max_size=10))
def test_noise_gives_events_or_a_protocol_error(role: type[Session], parts: list[bytes]) -> None:
    result = outcome(role, parts)
    assert result == outcome(role, [b"".join(parts)])
    assert all(0 <= window < 2**32 for window in result.windows)
