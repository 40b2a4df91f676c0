"""DCUtR's exchange between its two ends over a wire with a delay, and what each refuses to hear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.dcutr import (
    MAX_ADDRESSES,
    MAX_MESSAGE,
    HolePunch,
    Initiator,
    Kind,
    Responder,
    Synchronised,
    decode,
    encode,
)
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

OURS, THEIRS = (b"ours", b"ours too"), (b"theirs",)
CONNECT = encode_delimited(encode(HolePunch(Kind.CONNECT, THEIRS)))
SYNC = encode_delimited(encode(HolePunch(Kind.SYNC)))


def exchange(there: float, back: float) -> tuple[Synchronised, Synchronised]:
    """Run one attempt with so many seconds one way and the other; what the initiator and the responder know after it."""
    initiator, responder = Initiator(OURS), Responder(THEIRS)
    initiator.start(100.0)
    assert responder.receive(initiator.outgoing(), 100.0 + there) == []
    [first] = initiator.receive(responder.outgoing(), 100.0 + there + back)
    [second] = responder.receive(initiator.outgoing(), 100.0 + there + back + there)
    assert initiator.outgoing() == responder.outgoing() == b""
    return first, second


def test_both_ends_dial_at_the_same_moment() -> None:
    first, second = exchange(0.25, 0.25)
    assert first == Synchronised(THEIRS, 0.5, 100.75)
    assert second == Synchronised(OURS, 0.5, 100.75)


def test_unequal_ways_cost_half_their_difference() -> None:
    first, second = exchange(0.125, 0.375)
    assert abs(first.at - second.at) == 0.125


def test_who_asked_for_the_circuit_is_the_client() -> None:
    assert Responder.is_client
    assert not Initiator.is_client


def test_the_wire_is_the_specifications() -> None:
    assert encode(HolePunch(Kind.CONNECT, (b"ab", b"c"))).hex() == "0864" + "12026162" + "120163"
    assert encode(HolePunch(Kind.SYNC)).hex() == "08ac02"


@given(st.sampled_from(Kind), st.lists(st.binary(max_size=100), max_size=MAX_ADDRESSES))
def test_a_message_comes_back(kind: Kind, addresses: list[bytes]) -> None:
    message = HolePunch(kind, tuple(addresses))
    assert decode(encode(message)) == message


@given(st.lists(st.integers(1, 40)))
def test_however_it_is_cut(sizes: list[int]) -> None:
    """The same bytes give the same event, whatever parts they come in."""
    responder, wire, events = Responder(OURS), CONNECT + SYNC, []
    for size in [*sizes, len(wire)]:
        part, wire = wire[:size], wire[size:]
        events += responder.receive(part, 7.0)
    assert events == [Synchronised(THEIRS, 0.0, 7.0)]


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        ([b"a" * 10] * 60, [b"a" * 10] * MAX_ADDRESSES),
        ([b"a" * 201] * 60, [b"a" * 201] * 20),  # and the kind make 4,082 bytes
        ([b"a", b"b" * MAX_MESSAGE, b"c"], [b"a", b"c"]),
    ],
    ids=["too many", "too much", "too long"],
)
def test_the_first_addresses_that_fit_are_told(addresses: list[bytes], told: list[bytes]) -> None:
    initiator, responder = Initiator(addresses), Responder(())
    initiator.start(0.0)
    responder.receive(initiator.outgoing(), 0.0)
    assert responder.receive(SYNC, 0.0) == [Synchronised(tuple(told), 0.0, 0.0)]


def test_a_message_beyond_the_limit_is_not_written() -> None:
    with pytest.raises(LocalProtocolError):
        encode(HolePunch(Kind.CONNECT, (bytes(MAX_MESSAGE),)))


def test_addresses_beyond_the_limit_are_left_out() -> None:
    crowd = encode_delimited(encode(HolePunch(Kind.CONNECT, (b"x",) * (MAX_ADDRESSES + 1))))
    [event] = Responder(OURS).receive(crowd + SYNC, 0.0)
    assert len(event.addresses) == MAX_ADDRESSES


@pytest.mark.parametrize(
    "wire",
    [
        SYNC,
        CONNECT + CONNECT,
        CONNECT + SYNC + SYNC,
        encode_delimited(encode(HolePunch(Kind.CONNECT))),
        encode_delimited(bytes.fromhex("0865")),
        encode_delimited(bytes(MAX_MESSAGE + 1)),
    ],
    ids=["sync first", "connect twice", "sync twice", "nowhere", "unknown kind", "too long"],
)
def test_what_a_responder_refuses(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Responder(OURS).receive(wire, 0.0)


@pytest.mark.parametrize(
    "wire", [SYNC, CONNECT + CONNECT, CONNECT + SYNC], ids=["sync", "twice", "sync back"]
)
def test_what_an_initiator_refuses(wire: bytes) -> None:
    initiator = Initiator(OURS)
    initiator.start(0.0)
    with pytest.raises(RemoteProtocolError):
        initiator.receive(wire, 0.0)


def test_an_answer_before_the_question_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Initiator(OURS).receive(CONNECT, 0.0)


def test_an_attempt_starts_once() -> None:
    initiator = Initiator(OURS)
    initiator.start(0.0)
    with pytest.raises(LocalProtocolError):
        initiator.start(1.0)
