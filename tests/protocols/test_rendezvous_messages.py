"""Rendezvous messages: the specification's bytes, and any others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.rendezvous import (
    Discover,
    Discovered,
    Message,
    Register,
    Registered,
    Status,
    Unregister,
    decode,
    encode,
)

# Written by hand after the message definitions of libp2p specs, rendezvous.
VECTORS: list[tuple[Message, str]] = [
    (Register("my-app", b"E", 7200), "0800 120e 0a06 6d792d617070 120145 18a038"),
    (Register("my-app", b"E"), "0800 120b 0a06 6d792d617070 120145"),
    (Registered(Status.OK, 7200), "0801 1a05 0800 18a038"),
    (Registered(Status.INVALID_TTL, reason="no"), "0801 1a06 0866 12026e6f"),
    (Unregister("my-app"), "0802 2208 0a06 6d792d617070"),
    (Discover("my-app", 5, b"C"), "0803 2a0d 0a06 6d792d617070 1005 1a0143"),
    (Discover(None), "0803 2a00"),
    (Discovered(Status.OK, (Register("a", b"E", 1),), b"C"), "0804 320f 0a08 0a0161 120145 1801 120143 1800"),
    (Discovered(Status.INVALID_COOKIE, reason="no"), "0804 3206 1867 22026e6f"),
]

names, blobs, numbers = st.text(max_size=20), st.binary(max_size=20), st.integers(0, 2**63 - 1)
registers = st.builds(Register, names, blobs, st.none() | numbers)
messages = st.one_of(
    registers,
    st.builds(Registered, st.just(Status.OK), numbers, names),
    st.builds(Registered, st.sampled_from(Status), st.just(0), names),
    st.builds(Unregister, names),
    st.builds(Discover, st.none() | st.text(min_size=1, max_size=20), numbers, blobs),
    st.builds(Discovered, st.sampled_from(Status), st.lists(registers).map(tuple), blobs, names),
)


@pytest.mark.parametrize(("message", "encoded"), VECTORS, ids=lambda value: type(value).__name__)
def test_vectors(message: Message, encoded: str) -> None:
    assert encode(message).hex() == encoded.replace(" ", "")
    assert decode(bytes.fromhex(encoded)) == message


@given(messages)
def test_a_message_reads_back(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = decode(data)
        encoded = encode(message)
    except (RemoteProtocolError, LocalProtocolError):  # numbers of 64 bits are read, and never written
        return
    assert decode(encoded) == message


@pytest.mark.parametrize(
    "encoded", ["", "0805", "0800", "0801 1a02 0801", "0802 2203 0a01ff", "0a00", "0804 3202 0800"]
)
def test_what_is_no_message_is_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes.fromhex(encoded))


def test_an_empty_name_asks_for_all() -> None:
    assert decode(bytes.fromhex("0803 2a02 0a00")) == Discover(None)
