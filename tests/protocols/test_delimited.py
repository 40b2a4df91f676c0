"""Messages behind their lengths, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.delimited import Delimited, encode_delimited, missing
from peertunnel.protocols.errors import RemoteProtocolError


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_the_same_messages_come_out_however_they_are_split(messages: list[bytes], sizes: list[int]) -> None:
    stream, reader, found, turn = b"".join(map(encode_delimited, messages)), Delimited(200), list[bytes](), 0
    while stream:
        size = sizes[turn % len(sizes)]
        found += reader.receive(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == messages
    assert reader.is_between


def test_a_message_that_has_begun_is_told() -> None:
    reader = Delimited(10)
    assert reader.receive(b"\x02a") == []
    assert not reader.is_between


def test_a_message_beyond_the_limit_is_refused_before_it_is_there() -> None:
    assert Delimited(10).receive(encode_delimited(bytes(10))) == [bytes(10)]
    with pytest.raises(RemoteProtocolError, match="may have 10"):
        Delimited(10).receive(b"\x0b")


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_a_remote_error(data: bytes) -> None:
    try:
        messages = Delimited(64).receive(data)
    except RemoteProtocolError:
        return
    assert (
        b"".join(map(encode_delimited, messages)) == data[: sum(len(encode_delimited(m)) for m in messages)]
    )


@given(st.binary(max_size=300), st.binary(max_size=10))
def test_a_first_message_is_read_without_what_follows(message: bytes, rest: bytes) -> None:
    stream, begun = encode_delimited(message) + rest, b""
    while size := missing(begun, 300):
        begun += stream[len(begun) : len(begun) + size]
    assert begun + rest == stream


def test_a_first_message_has_a_limit() -> None:
    assert missing(b"\x03", 3) == 3
    with pytest.raises(RemoteProtocolError):
        missing(b"\x04", 3)
