"""AutoNAT's messages, and its v2 exchange between the two ends."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.autonat import v1
from peertunnel.protocols.autonat.exchange import (
    MAX_DIAL_DATA,
    MIN_DIAL_DATA,
    Client,
    DialDataReceived,
    DialRequested,
    Server,
)
from peertunnel.protocols.autonat.messages import (
    MAX_ADDRESSES,
    MAX_MESSAGE,
    MAX_NONCE,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    DialStatus,
    Message,
    Status,
    decode,
    decode_dial_back,
    encode,
    encode_dial_back,
    encode_dial_back_response,
)
from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

# Written by hand after the message definitions of libp2p specs, autonat-v2 and autonat-v1.
VECTORS: list[tuple[Message, str]] = [
    (DialRequest((b"ab", b"c"), 258), "0a10 0a026162 0a0163 11 0201000000000000"),
    (DialResponse(Status.OK, 1, DialStatus.DIAL_ERROR), "1207 08c801 1001 1864"),
    (DialDataRequest(1, 30_000), "1a06 0801 10b0ea01"),
    (DialDataResponse(b"abc"), "2205 0a03616263"),
]
V1_VECTORS: list[tuple[v1.Dial | v1.DialResponse, str]] = [
    (v1.Dial(b"id", (b"ab", b"c")), "0800 120d 0a0b 0a026964 12026162 120163"),
    (v1.DialResponse(v1.Status.OK, b"ab"), "0801 1a06 0800 1a026162"),
    (v1.DialResponse(v1.Status.DIAL_REFUSED), "0801 1a02 0865"),
]
OK = DialResponse(Status.OK, 0, DialStatus.OK)

blobs, nonces = st.binary(max_size=40), st.integers(0, MAX_NONCE)
messages = st.one_of(
    st.builds(DialRequest, st.lists(blobs, max_size=MAX_ADDRESSES).map(tuple), nonces),
    st.builds(DialResponse, st.sampled_from(Status), st.integers(0, 2**32), st.sampled_from(DialStatus)),
    st.builds(DialDataRequest, st.integers(0, 2**32), st.integers(0, 2**63 - 1)),
    st.builds(DialDataResponse, blobs),
)
v1_messages = st.one_of(
    st.builds(v1.Dial, blobs, st.lists(blobs, max_size=v1.MAX_ADDRESSES).map(tuple)),
    st.builds(v1.DialResponse, st.sampled_from(v1.Status), blobs),
)


def sent(message: Message) -> bytes:
    return encode_delimited(encode(message))


def asking() -> Client:
    client = Client([b"first", b"second"], 7)
    client.ask()
    client.outgoing()
    return client


@pytest.mark.parametrize(("message", "encoded"), VECTORS, ids=lambda value: type(value).__name__)
def test_vectors(message: Message, encoded: str) -> None:
    assert encode(message).hex() == encoded.replace(" ", "")
    assert decode(bytes.fromhex(encoded)) == message


@pytest.mark.parametrize(("message", "encoded"), V1_VECTORS, ids=lambda value: type(value).__name__)
def test_vectors_of_version_1(message: v1.Dial | v1.DialResponse, encoded: str) -> None:
    assert v1.encode(message).hex() == encoded.replace(" ", "")
    assert v1.decode(bytes.fromhex(encoded)) == message


def test_vectors_of_the_dial_back() -> None:
    assert encode_dial_back(258).hex() == "09" + "0201000000000000"
    assert encode_dial_back_response().hex() == "0800"


@given(messages)
def test_a_message_reads_back(message: Message) -> None:
    assert decode(encode(message)) == message


@given(v1_messages)
def test_a_message_of_version_1_reads_back(message: v1.Dial | v1.DialResponse) -> None:
    assert v1.decode(v1.encode(message)) == message


@given(nonces)
def test_a_nonce_reads_back(nonce: int) -> None:
    assert decode_dial_back(encode_dial_back(nonce)) == nonce


@pytest.mark.parametrize("reader", [decode, v1.decode, decode_dial_back])
@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(reader: Callable[[bytes], object], data: bytes) -> None:
    try:
        reader(data)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    "encoded", ["", "2a00", "0a00 1200", "1202 0801", "1202 1801", "0a03 110100", "0a02 1001"]
)
def test_what_is_no_message_is_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["", "0800", "0801", "0802", "0801 1a02 0801"])
def test_what_is_no_message_of_version_1_is_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        v1.decode(bytes.fromhex(encoded))


def test_a_nonce_has_64_bits() -> None:
    with pytest.raises(LocalProtocolError):
        encode_dial_back(MAX_NONCE + 1)


def test_an_address_of_the_client_s_own_ip() -> None:
    client, server = Client([b"first", b"second"], 7), Server()
    client.ask()
    assert server.receive(client.outgoing()) == [DialRequested((b"first", b"second"), 7)]
    server.respond(OK)
    assert client.receive(server.outgoing()) == [OK]


@pytest.mark.parametrize("size", [MIN_DIAL_DATA, 54_321, MAX_DIAL_DATA])
@given(st.lists(st.integers(1, 5000), max_size=5))
def test_another_address_costs_data(size: int, cuts: list[int]) -> None:
    client, server = Client([b"elsewhere"], 7), Server()
    client.ask()
    server.receive(client.outgoing())
    server.ask_for_data(0, size)
    assert client.receive(server.outgoing()) == []
    wire = client.outgoing()
    contents = Delimited(4104).receive(wire)  # no more than rust-libp2p takes in a message
    assert sum(len(data.data) for data in map(decode, contents) if isinstance(data, DialDataResponse)) == size
    events = []
    for cut in [*cuts, len(wire)]:
        events += server.receive(wire[:cut])
        wire = wire[cut:]
        assert (events == [DialDataReceived()]) == (not wire)
    server.respond(OK)
    assert client.receive(server.outgoing()) == [OK]


@pytest.mark.parametrize(
    "wire",
    [
        sent(DialDataRequest(0, MAX_DIAL_DATA + 1)),
        sent(DialDataRequest(2, MIN_DIAL_DATA)),
        sent(DialDataRequest(0, MIN_DIAL_DATA)) * 2,
        sent(DialResponse(Status.OK, 2, DialStatus.OK)),
        sent(DialResponse(Status.OK, 0)),
        sent(OK) * 2,
        sent(DialRequest((), 7)),
        sent(DialDataResponse(bytes(100))),
        encode_delimited(bytes(MAX_MESSAGE + 1)),
    ],
    ids=[
        "too much data",
        "data for no address",
        "data twice",
        "no such address",
        "no result",
        "two answers",
        "a question",
        "data",
        "too long",
    ],
)
def test_what_a_client_refuses(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        asking().receive(wire)


def test_a_refusal_names_no_address() -> None:
    refusal = DialResponse(Status.DIAL_REFUSED, 9)
    assert asking().receive(sent(refusal)) == [refusal]


def test_an_answer_before_the_question_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Client([b"first"], 7).receive(sent(OK))


def test_a_client_asks_once() -> None:
    with pytest.raises(LocalProtocolError):
        asking().ask()


@pytest.mark.parametrize(
    "wire",
    [
        sent(DialDataResponse(bytes(100))),
        sent(DialRequest((), 1)) * 2,
        sent(DialRequest((), 1)) + sent(DialDataResponse(bytes(100))),
        sent(OK),
        encode_delimited(bytes(MAX_MESSAGE + 1)),
    ],
    ids=["data first", "twice", "data unasked", "an answer", "too long"],
)
def test_what_a_server_refuses(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Server().receive(wire)


def test_data_in_small_pieces_is_refused() -> None:
    """Each message costs the server time, and hardly any of the client's bandwidth."""
    server = Server()
    server.receive(sent(DialRequest((b"elsewhere",), 1)))
    server.ask_for_data(0, MIN_DIAL_DATA)
    server.receive(sent(DialDataResponse(bytes(100))))
    with pytest.raises(RemoteProtocolError):
        server.receive(sent(DialDataResponse(bytes(99))))


def test_data_beyond_what_was_asked_for_is_refused() -> None:
    server = Server()
    server.receive(sent(DialRequest((b"elsewhere",), 1)))
    server.ask_for_data(0, MIN_DIAL_DATA)
    chunk = sent(DialDataResponse(bytes(4000)))
    assert server.receive(chunk * 8) == [DialDataReceived()]
    with pytest.raises(RemoteProtocolError):
        server.receive(chunk)


@pytest.mark.parametrize(
    ("index", "size"), [(1, MIN_DIAL_DATA), (0, MIN_DIAL_DATA - 1), (0, MAX_DIAL_DATA + 1)]
)
def test_what_a_server_can_t_ask_for(index: int, size: int) -> None:
    server = Server()
    server.receive(sent(DialRequest((b"elsewhere",), 1)))
    with pytest.raises(LocalProtocolError):
        server.ask_for_data(index, size)


def test_a_server_answers_once_and_may_refuse_at_once() -> None:
    server = Server()
    server.respond(DialResponse(Status.REQUEST_REJECTED))
    with pytest.raises(LocalProtocolError):
        server.respond(OK)
