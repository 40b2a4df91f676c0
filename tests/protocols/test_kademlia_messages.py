"""Kademlia's messages: the specification's fields, what other peers send, and any bytes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.kademlia.messages import (
    MAX_ADDRESS,
    MAX_ADDRESSES,
    MAX_KEY,
    MAX_PEER_ID,
    MAX_PROVIDERS,
    Connection,
    Contact,
    K,
    Message,
    Type,
    decode,
    encode,
    encode_within,
)
from peertunnel.protocols.protobuf import encode_message

contacts = st.builds(
    Contact,
    st.binary(min_size=1, max_size=MAX_PEER_ID),
    st.lists(st.binary(min_size=1, max_size=MAX_ADDRESS), max_size=4, unique=True).map(tuple),
    st.sampled_from(Connection),
)
contact_lists = st.lists(contacts, max_size=K, unique_by=lambda contact: contact.peer_id).map(tuple)
messages = st.builds(
    Message,
    st.sampled_from(Type),
    st.binary(max_size=MAX_KEY),
    contact_lists,
    contact_lists,
    st.none() | st.binary(max_size=64),
)


def numbered(count: int) -> tuple[Contact, ...]:
    return tuple(
        Contact(number.to_bytes(4), (b"\x04\x7f\0\0\1\x06" + number.to_bytes(2),)) for number in range(count)
    )


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=256))
def test_any_bytes_are_a_message_or_a_remote_error(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    assert len(message.closer) <= K
    assert decode(encode(message)) == message


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2**63 - 1) | st.binary(max_size=80)), max_size=12)
)
def test_any_fields_are_a_message_or_a_remote_error(fields: list[tuple[int, int | bytes]]) -> None:
    try:
        message = decode(encode_message(fields))
    except RemoteProtocolError:
        return
    for contact in message.closer + message.providers:
        assert 0 < len(contact.peer_id) <= MAX_PEER_ID


def test_fields_have_the_numbers_of_the_specification() -> None:
    contact = Contact(b"peer", (b"where",), Connection.CONNECTED)
    encoded = encode_message([(1, b"peer"), (2, b"where"), (3, 1)])
    assert encode(Message(Type.GET_PROVIDERS, b"key", (contact,), (contact,), b"record")) == encode_message(
        [(1, 3), (2, b"key"), (3, b"record"), (8, encoded), (9, encoded)]
    )


def test_a_bad_entry_does_not_lose_the_rest() -> None:
    good = encode_message([(1, b"peer"), (2, b"where")])
    bad = [b"\xff", b"", encode_message([(1, b"x" * (MAX_PEER_ID + 1))]), encode_message([(1, 7)])]
    message = decode(encode_message([(1, 4), *((8, entry) for entry in (*bad, good, good))]))
    assert message.closer == (Contact(b"peer", (b"where",)),)


def test_an_unknown_connection_is_none() -> None:
    encoded = encode_message([(1, b"peer"), (3, 9)])
    assert decode(encode_message([(1, 4), (8, encoded)])).closer[0].connection is Connection.NOT_CONNECTED


def test_what_one_answer_may_hold_is_bounded() -> None:
    message = decode(encode(Message(Type.GET_PROVIDERS, b"key", numbered(1000), numbered(MAX_PROVIDERS + 1))))
    assert message.closer == numbered(K)
    assert message.providers == numbered(MAX_PROVIDERS)
    many = Contact(b"peer", (b"x" * (MAX_ADDRESS + 1), b"", *(bytes([n]) for n in range(100))))
    found = decode(encode(Message(Type.FIND_NODE, b"key", (many,)))).closer[0]
    assert found.addresses == many.addresses[2 : 2 + MAX_ADDRESSES]
    assert decode(encode(Message(Type.FIND_NODE, b"k" * MAX_KEY))).key == b"k" * MAX_KEY


@pytest.mark.parametrize(
    "data",
    [
        encode_message([(1, 6)]),
        encode_message([(1, b"x")]),
        encode_message([(2, 1)]),
        encode(Message(Type.FIND_NODE, b"k" * (MAX_KEY + 1))),
        encode_message([(8, 3)]),
        encode(Message(Type.PING, b"key"))[:-1],
    ],
)
def test_malformed_messages_are_the_peers_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data)


def test_an_answer_gives_as_many_providers_as_fit() -> None:
    message = Message(Type.GET_PROVIDERS, b"key", numbered(20), numbered(1000))
    encoded = encode_within(message, 4096)
    kept = decode(encoded).providers
    assert 4096 - 30 < len(encoded) <= 4096
    assert kept == message.providers[: len(kept)]
    assert encode_within(replace(message, providers=kept), 4096) == encoded
