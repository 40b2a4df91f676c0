"""Protocol Buffers' wire format: the examples of its documentation, there and back, and any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import Value, decode_message, encode_message

fields = st.lists(st.tuples(st.integers(1, 2**20), st.integers(0, 2**63 - 1) | st.binary(max_size=40)))


def test_the_examples_of_the_documentation() -> None:
    assert encode_message([(1, 150)]).hex() == "089601"
    assert encode_message([(2, b"testing")]).hex() == "120774657374696e67"
    assert encode_message([(1, None)]) == b""


@given(fields)
def test_what_is_encoded_is_decoded(given_fields: list[tuple[int, Value]]) -> None:
    expected: dict[int, list[Value]] = {}
    for number, value in given_fields:
        expected.setdefault(number, []).append(value)
    assert decode_message(encode_message(given_fields)) == expected


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_remote_error(data: bytes) -> None:
    try:
        found = decode_message(memoryview(data))
    except RemoteProtocolError:
        return
    assert 0 not in found
    assert sum(map(len, found.values())) <= len(data)


@pytest.mark.parametrize(
    "data", ["08", "0a05aa", "00", "0b", "0d0000", "08" + "ff" * 10 + "01", "0a" + "ff" * 9 + "01"]
)
def test_malformed(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(bytes.fromhex(data))


def test_fixed_sizes_are_passed_over_and_long_varints_read() -> None:
    found = decode_message(bytes.fromhex("0d0102030411" + "00" * 8 + "18" + "ff" * 9 + "01" + "208000"))
    assert found == {1: [b"\1\2\3\4"], 2: [bytes(8)], 3: [2**64 - 1], 4: [0]}


def test_the_last_of_a_single_field_counts() -> None:
    found = decode_message(encode_message([(1, 1), (1, 2), (2, b"a"), (2, b"b")]))
    assert (found.integer(1), found.blob(2), found.blobs(2)) == (2, b"b", [b"a", b"b"])
    assert (found.integer(3, 7), found.blob(3, b"x"), found.blobs(3)) == (7, b"x", [])
    for wrong in (lambda: found.integer(2), lambda: found.blob(1), lambda: found.blobs(1)):
        with pytest.raises(RemoteProtocolError):
            wrong()
