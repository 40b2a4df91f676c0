"""Varints: the specification's examples, and every number there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.varint import decode_varint, encode_varint

EXAMPLES = [  # multiformats/unsigned-varint, README
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (255, "ff01"),
    (300, "ac02"),
    (16384, "808001"),
    (2**63 - 1, "ffffffffffffffff7f"),
]


@pytest.mark.parametrize(("value", "encoded"), EXAMPLES)
def test_examples(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


@given(st.integers(0, 2**63 - 1), st.binary(), st.binary())
def test_round_trip_between_other_bytes(value: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(value)
    assert decode_varint(before + encoded + after, len(before)) == (value, len(before + encoded))


@given(st.integers(0, 2**63 - 1))
def test_a_part_is_not_a_number_yet(value: int) -> None:
    encoded = encode_varint(value)
    assert all(decode_varint(encoded[:size]) is None for size in range(len(encoded)))


@given(st.binary(max_size=12))
def test_any_bytes_give_a_number_nothing_or_a_remote_error(data: bytes) -> None:
    try:
        decoded = decode_varint(memoryview(data))
    except RemoteProtocolError:
        return
    if decoded is None:
        assert len(data) < 9
    else:
        value, end = decoded
        assert encode_varint(value) == data[:end]


@pytest.mark.parametrize("encoded", ["8000", "ff00", "808000"])
def test_longer_than_need_be(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError, match="need be"):
        decode_varint(bytes.fromhex(encoded))


def test_too_long() -> None:
    with pytest.raises(RemoteProtocolError, match="9 bytes"):
        decode_varint(b"\x80" * 9)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_numbers_that_do_not_fit(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_varint(value)
