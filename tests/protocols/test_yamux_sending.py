"""Sending: frames in a batch, windows of the peer that are spent and opened again, ids that run out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.yamux import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    ClientSession,
    ServerSession,
    Session,
    StreamFinished,
    WindowOpened,
)

from .wire import ACK, FIN, INITIAL, RST, SYN, Pair, client_with_stream, data, feed, merged, received, update

SIZES = [1, 2, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD, 2 * MAX_PAYLOAD + 1, INITIAL]


def batch_of(payload: bytes) -> bytearray:
    """Lay payload out as frame_in_place wants it, with rubbish where the headers will be."""
    batch = bytearray()
    for start in range(0, len(payload), MAX_PAYLOAD):
        batch += b"\xee" * HEADER_SIZE + payload[start : start + MAX_PAYLOAD]
    return batch


def test_a_data_frame_with_its_header_fills_one_noise_record() -> None:
    assert HEADER_SIZE + MAX_PAYLOAD == 65535 - 16


@pytest.mark.parametrize("size", SIZES)
def test_framing_in_place_and_copying_give_the_same_bytes(size: int) -> None:
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    copying, in_place = client_with_stream(), client_with_stream()
    copying.send_data(1, payload)
    batch = batch_of(payload) + b"spare room"
    end = in_place.frame_in_place(1, memoryview(batch), size)
    expected = copying.outgoing()
    assert batch[:end] == expected
    assert batch[end:] == b"spare room"
    assert not in_place.queued
    assert copying.send_window(1) == in_place.send_window(1) == INITIAL - size
    frames = [data(1, payload[start : start + MAX_PAYLOAD]) for start in range(0, size, MAX_PAYLOAD)]
    assert expected == b"".join(frames)


@given(st.lists(st.integers(0, INITIAL // 4), min_size=1, max_size=4), st.data())
def test_the_peer_reads_what_either_way_sent(sizes: list[int], draw: st.DataObject) -> None:
    pair = Pair()
    stream, payload, wire = pair.open(), b"", b""
    for number, size in enumerate(sizes):
        part = bytes([number]) * size
        payload += part
        if draw.draw(st.booleans()):
            pair.client.send_data(stream, memoryview(part))
        else:
            batch = batch_of(part)
            assert pair.client.frame_in_place(stream, memoryview(batch), size) == len(batch)
            wire += pair.client.outgoing() + batch
    pair.client.send_fin(stream)
    events = merged(feed(pair.server, wire + pair.client.outgoing()))
    assert events == [*([received(stream, payload)] if payload else []), StreamFinished(stream)]


def test_nothing_to_send_is_no_frame() -> None:
    session = client_with_stream()
    session.send_data(1, b"")
    assert session.frame_in_place(1, memoryview(bytearray(12)), 0) == 0
    assert not session.queued


def test_what_is_sent_is_a_copy() -> None:
    session, payload = client_with_stream(), bytearray(b"before")
    session.send_data(1, memoryview(payload))
    payload[:] = b"after!"
    assert session.outgoing() == data(1, b"before")


def test_outgoing_is_handed_out_once() -> None:
    session = client_with_stream()
    session.send_fin(1)
    assert session.queued
    first = session.outgoing()
    session.send_reset(1)
    assert session.outgoing() == update(1, flags=RST)
    assert first == update(1, flags=FIN)
    assert not session.queued
    assert session.outgoing() == b""


def test_the_peers_window_is_spent_to_the_last_byte_and_no_further() -> None:
    session = client_with_stream()
    session.send_data(1, bytes(INITIAL - 1))
    assert session.send_window(1) == 1
    for overrun in (b"xx", bytes(INITIAL)):
        with pytest.raises(LocalProtocolError):
            session.send_data(1, overrun)
        with pytest.raises(LocalProtocolError):
            session.frame_in_place(1, memoryview(batch_of(overrun)), len(overrun))
    session.outgoing()
    session.send_data(1, b"x")
    assert session.send_window(1) == 0
    assert session.outgoing() == data(1, b"x")


def test_a_window_is_reported_open_only_if_it_was_used_up() -> None:
    session = client_with_stream()
    assert feed(session, update(1, 10)) == []
    session.send_data(1, bytes(INITIAL + 10))
    assert feed(session, update(1, 0)) == []
    assert feed(session, update(1, 7) + update(1, 8)) == [WindowOpened(1)]
    assert session.send_window(1) == 15


def test_a_window_does_not_open_for_a_stream_that_we_finished() -> None:
    session = client_with_stream()
    session.send_data(1, bytes(INITIAL))
    session.send_fin(1)
    assert feed(session, update(1, 1000)) == []


def test_a_window_opens_before_the_fin_that_rides_on_it() -> None:
    session = client_with_stream()
    session.send_data(1, bytes(INITIAL))
    assert feed(session, update(1, 5, FIN)) == [WindowOpened(1), StreamFinished(1)]


def test_a_stream_may_be_opened_with_a_wider_window() -> None:
    client, server = ClientSession(0.0), ServerSession(0.0)
    client.open_stream(0.0)
    feed(client, update(1, 1000, ACK))
    feed(server, update(1, 2000, SYN))
    assert (client.send_window(1), server.send_window(1)) == (INITIAL + 1000, INITIAL + 2000)


def test_a_window_that_overflows_is_an_error() -> None:
    session = client_with_stream()
    assert feed(session, update(1, 2**32 - 1 - INITIAL)) == []
    assert session.send_window(1) == 2**32 - 1
    with pytest.raises(RemoteProtocolError, match="overflows"):
        feed(session, update(1, 1))


def test_the_code_of_a_reset_is_no_window() -> None:
    session = client_with_stream()
    session.send_data(1, bytes(INITIAL))
    assert [type(event).__name__ for event in feed(session, update(1, 2**32 - 1, RST))] == ["StreamReset"]


def test_a_stream_that_never_was_has_no_window() -> None:
    session = ClientSession(0.0)
    assert session.send_window(1) == 0
    with pytest.raises(LocalProtocolError):
        session.send_data(1, b"x")
    session.send_fin(1)
    session.send_reset(1)
    session.consumed(1, 2**20, 0.0)
    assert not session.queued


class _LateClient(ClientSession):
    _first_id = 2**32 - 3


class _LateServer(ServerSession):
    _first_id = 2**32 - 4


@pytest.mark.parametrize(("role", "last"), [(_LateClient, 2**32 - 1), (_LateServer, 2**32 - 2)])
def test_stream_ids_run_out(role: type[Session], last: int) -> None:
    session = role(0.0)
    assert [session.open_stream(0.0), session.open_stream(0.0)] == [last - 2, last]
    with pytest.raises(LocalProtocolError, match="ids"):
        session.open_stream(0.0)
    assert session.streams_unacknowledged == session.open_streams == 2
    assert session.outgoing() == update(last - 2, flags=SYN) + update(last, flags=SYN)
