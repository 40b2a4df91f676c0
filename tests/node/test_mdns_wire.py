"""Multicast DNS messages: ours, those of others, and those of nobody in their right mind."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSIncoming, DNSPointer, DNSService, DNSText  # type: ignore[attr-defined]

from peertunnel.discovery.mdns_peer import encode_peer, sightings
from peertunnel.discovery.mdns_wire import (
    MAX_ENTRIES,
    MAX_MESSAGE,
    SERVICE,
    Instance,
    Message,
    Pointer,
    Text,
    decode,
    encode_query,
    encode_response,
)
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from tests.node import mdns_vectors

LABEL = b"a" * 32
NAME = (LABEL, *SERVICE)
SERVICE_BYTES = b"\x04_p2p\x04_udp\x05local\x00"
HOSTS = (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1"))


def header(questions: int = 0, answers: int = 0, flags: int = 0x8400) -> bytes:
    return struct.pack("!6H", 0, flags, questions, answers, 0, 0)


def record(name: bytes, kind: int, data: bytes, ttl: int = 120) -> bytes:
    return name + struct.pack("!2HLH", kind, 1, ttl, len(data)) + data


def response(*strings: bytes, ttl: int = 120) -> bytes:
    return encode_response(Instance(LABEL, strings, HOSTS, 4001, ttl))


def test_the_question_for_all_peers() -> None:
    assert encode_query() == header(questions=1, flags=0) + SERVICE_BYTES + b"\x00\x0c\x00\x01"
    assert decode(encode_query()) == Message(False, (SERVICE,), (), ())


def test_a_response_reads_back() -> None:
    expected = Message(True, (), (Pointer(SERVICE, NAME, 120),), (Text(NAME, (b"dnsaddr=/a", b"pt=b"), 120),))
    assert decode(response(b"dnsaddr=/a", b"pt=b")) == expected


def test_a_response_reads_the_same_to_another_library() -> None:
    message = DNSIncoming(response(b"dnsaddr=/a", b"pt=b"))
    pointer, service, text, *addresses = message.answers()
    name = f"{LABEL.decode()}._p2p._udp.local."
    assert message.valid and message.is_response() and message.num_answers == 1
    assert isinstance(pointer, DNSPointer) and (pointer.name, pointer.alias) == ("_p2p._udp.local.", name)
    assert isinstance(service, DNSService) and (service.name, service.port) == (name, 4001)
    assert isinstance(text, DNSText) and (text.name, text.text) == (name, b"\x0adnsaddr=/a\x04pt=b")
    assert [(record.name, record.unique) for record in addresses] == 2 * [(service.server, True)]
    assert {record.ttl for record in message.answers()} == {120}


def test_names_ignore_case() -> None:
    message = decode(header(questions=1, flags=0) + SERVICE_BYTES.upper() + bytes(4))
    assert message.questions == (SERVICE,)


def test_a_label_that_is_too_long_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        encode_response(Instance(b"a" * 64, (), HOSTS, 4001, 120))


def test_a_string_that_is_too_long_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        response(b"a" * 256)


@pytest.mark.parametrize(
    ("vector", "peer_id", "ttl"),
    [
        (mdns_vectors.RUST_RESPONSE, mdns_vectors.RUST_PEER, 360),
        (mdns_vectors.GO_RESPONSE, mdns_vectors.GO_PEER, 3200),
        (mdns_vectors.GO_ANNOUNCEMENT, mdns_vectors.GO_PEER, 3200),
    ],
)
def test_what_other_implementations_say(vector: bytes, peer_id: str, ttl: int) -> None:
    (sighting,) = sightings(decode(vector))
    assert (sighting.peer_id, sighting.ttl) == (peer_id, ttl)
    assert {f"/ip4/10.9.9.1/tcp/4001/p2p/{peer_id}", f"/ip4/127.0.0.1/tcp/4001/p2p/{peer_id}"} <= set(
        sighting.addresses
    )


def test_a_query_with_records_is_no_response() -> None:
    message = decode(mdns_vectors.GO_PROBE)
    assert not message.is_response and message.texts and message.questions[0][1:] == SERVICE


POINTER_LOOP = b"\xc0\x0c"
LONG_NAME = 4 * (b"\x3f" + b"a" * 63) + b"\0"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header()[:-1],
        bytes(MAX_MESSAGE + 1),
        header(questions=MAX_ENTRIES + 1) + (MAX_ENTRIES + 1) * (b"\0" + bytes(4)),
        header(questions=1),
        header(questions=1) + SERVICE_BYTES,
        header(questions=1) + SERVICE_BYTES[:-1],
        header(questions=1) + b"\x05ab\0" + bytes(1),
        header(questions=1) + POINTER_LOOP + bytes(4),
        header(questions=1) + b"\xc0\x0e\0" + bytes(4),
        header(questions=1) + b"\xc0",
        header(questions=1) + b"\x40" + bytes(99),
        header(questions=1) + LONG_NAME + bytes(4),
        header(answers=1) + record(SERVICE_BYTES, 16, b"\x03ab"),
        header(answers=1) + record(SERVICE_BYTES, 12, SERVICE_BYTES + b"\0"),
        header(answers=1) + record(SERVICE_BYTES, 16, b"\x02ab")[:-1],
        header(answers=1) + record(SERVICE_BYTES, 99, b"abc")[:-1],
    ],
    ids=[
        "nothing",
        "half a header",
        "too long",
        "too many entries",
        "no name",
        "no type",
        "a name without an end",
        "a label without an end",
        "a pointer to itself",
        "a pointer forward",
        "half a pointer",
        "an unknown label",
        "a name that is too long",
        "a string beyond its record",
        "a record that is too short",
        "TXT beyond the message",
        "anything beyond the message",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data)


def test_pointers_cannot_go_in_circles() -> None:
    hidden = len(header() + record(SERVICE_BYTES, 99, b""))
    circle = struct.pack("!2H", 0xC000 | hidden + 2, 0xC000 | hidden)
    data = header(answers=2) + record(SERVICE_BYTES, 99, circle) + record(circle[2:], 16, b"")
    with pytest.raises(RemoteProtocolError):
        decode(data)


def test_chains_of_pointers_are_short() -> None:
    """Each is read in a moment, but a message holds thousands, and each of its names may lead through all of them."""
    at, links = len(header()) + 11, 200  # behind the header of a record without a name
    chain = b"\x00" + b"".join(struct.pack("!H", 0xC000 | max(at, at + 2 * n - 1)) for n in range(links))
    last = struct.pack("!H", 0xC000 | at + 2 * links - 1)
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode(header(answers=2) + record(b"\x00", 99, chain) + record(last, 16, b""))


def test_unknown_records_are_passed_over() -> None:
    data = header(answers=2) + record(SERVICE_BYTES, 99, b"abc") + record(b"\xc0\x0c", 16, b"\x01a")
    assert decode(data).texts == (Text(SERVICE, (b"a",), 120),)


def test_pointers_may_follow_each_other_backwards() -> None:
    data = header(questions=3, flags=0) + b"\x05local\0" + bytes(4)
    data += b"\x04_udp\xc0\x0c" + bytes(4)
    data += b"\x04_p2p\xc0\x17" + bytes(4)
    assert decode(data).questions[2] == SERVICE


@given(st.binary(max_size=600))
def test_any_bytes_give_a_message_or_one_error(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    assert all(sighting.addresses for sighting in sightings(message))


@given(st.data())
def test_any_damage_gives_a_message_or_one_error(data: st.DataObject) -> None:
    vectors = [mdns_vectors.RUST_RESPONSE, mdns_vectors.GO_RESPONSE, mdns_vectors.GO_ANNOUNCEMENT]
    damaged = bytearray(data.draw(st.sampled_from(vectors)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(damaged))
    except RemoteProtocolError:
        return
    for sighting in sightings(message):
        assert encode_peer(LABEL, sighting.addresses, (), 120)
