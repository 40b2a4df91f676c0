"""The exchange before two peers meet by chance: who opens, who probes, in which order, and what each refuses to hear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.punch import (
    AHEAD,
    BEHIND,
    MAX_ADDRESS,
    MAX_ADDRESSES,
    MAX_MESSAGE,
    Agreed,
    Initiator,
    Kind,
    Mapping,
    Opened,
    Probed,
    Proposal,
    Responder,
    Role,
    decode,
    encode,
    likely_ports,
    opens,
)

UNKNOWN, STEADY, CHANGING = Mapping
OURS, THEIRS = (b"ours",), (b"theirs", b"theirs too")


def said(message: Proposal | Kind) -> bytes:
    return encode_delimited(encode(message))


def agree(one: Mapping, other: Mapping) -> tuple[Initiator, Responder, tuple[Role, ...]]:
    """Have two ends agree; them, and the turns of the initiator."""
    initiator, responder = Initiator(Proposal(one, OURS)), Responder(Proposal(other, THEIRS))
    initiator.start()
    [theirs] = responder.receive(initiator.outgoing())
    [ours] = initiator.receive(responder.outgoing())
    assert isinstance(ours, Agreed) and isinstance(theirs, Agreed)
    assert (ours.theirs, theirs.theirs) == (Proposal(other, THEIRS), Proposal(one, OURS))
    assert len(ours.turns) == len(theirs.turns)
    assert all(
        pair in ((Role.OPENER, Role.PROBER), (Role.PROBER, Role.OPENER))
        for pair in zip(ours.turns, theirs.turns, strict=True)
    )
    return initiator, responder, ours.turns


@pytest.mark.parametrize(
    ("one", "other", "turns"),
    [
        (CHANGING, STEADY, [Role.OPENER]),
        (STEADY, CHANGING, [Role.PROBER]),
        (UNKNOWN, STEADY, [Role.OPENER]),
        (STEADY, UNKNOWN, [Role.PROBER]),
        (CHANGING, UNKNOWN, [Role.OPENER]),
        (UNKNOWN, CHANGING, [Role.PROBER]),
        (UNKNOWN, UNKNOWN, [Role.OPENER, Role.PROBER]),
        (STEADY, STEADY, []),
        (CHANGING, CHANGING, []),
    ],
)
def test_the_end_whose_nat_maps_anew_opens(one: Mapping, other: Mapping, turns: list[Role]) -> None:
    assert list(agree(one, other)[2]) == turns


def test_turns_follow_each_other() -> None:
    initiator, responder, _ = agree(UNKNOWN, UNKNOWN)
    ends: list[Initiator | Responder] = [initiator, responder]
    for opener, prober in (ends, ends[::-1]):
        opener.opened()
        assert prober.receive(opener.outgoing()) == [Opened()]
        prober.probed()
        assert opener.receive(prober.outgoing()) == [Probed()]
    for end in ends:
        with pytest.raises(LocalProtocolError):
            end.opened()


def test_nothing_is_said_out_of_turn() -> None:
    initiator, responder, _ = agree(UNKNOWN, UNKNOWN)
    for early in (initiator.probed, responder.probed, responder.opened):
        with pytest.raises(LocalProtocolError):
            early()
    initiator.opened()
    with pytest.raises(LocalProtocolError):
        initiator.opened()


@pytest.mark.parametrize(
    "wire",
    [
        said(Kind.PROBED),
        said(Kind.OPENED) * 2,
        said(Kind.OPENED) + said(Kind.PROBED),
        said(Proposal(UNKNOWN, THEIRS)),
        encode_delimited(bytes.fromhex("0804")),
        encode_delimited(bytes(MAX_MESSAGE + 1)),
    ],
    ids=["probed first", "opened twice", "both", "another proposal", "unknown kind", "too long"],
)
def test_what_a_prober_refuses(wire: bytes) -> None:
    _, responder, _ = agree(UNKNOWN, UNKNOWN)
    with pytest.raises(RemoteProtocolError):
        responder.receive(wire)


@pytest.mark.parametrize("kind", [Kind.OPENED, Kind.PROBED])
def test_what_an_opener_refuses_before_it_has_opened(kind: Kind) -> None:
    initiator, _, _ = agree(UNKNOWN, UNKNOWN)
    with pytest.raises(RemoteProtocolError):
        initiator.receive(said(kind))


@pytest.mark.parametrize(
    "wire", [said(Kind.OPENED), said(Proposal(CHANGING, ()))], ids=["no proposal", "nowhere"]
)
def test_what_a_responder_refuses_first(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Responder(Proposal(STEADY, OURS)).receive(wire)


def test_an_answer_before_the_question_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Initiator(Proposal(STEADY, OURS)).receive(said(Proposal(CHANGING, THEIRS)))


def test_an_exchange_starts_once() -> None:
    initiator = Initiator(Proposal(STEADY, OURS))
    initiator.start()
    with pytest.raises(LocalProtocolError):
        initiator.start()


@given(st.sampled_from(Mapping), st.lists(st.binary(max_size=MAX_ADDRESS), max_size=MAX_ADDRESSES))
def test_a_proposal_comes_back(mapping: Mapping, addresses: list[bytes]) -> None:
    proposal = Proposal(mapping, tuple(addresses))
    assert decode(encode(proposal)) == proposal
    assert len(encode(proposal)) <= MAX_MESSAGE


def test_the_wire() -> None:
    assert encode(Proposal(CHANGING, (b"ab", b"c"))).hex() == "0801" + "1002" + "1a026162" + "1a0163"
    assert (encode(Kind.OPENED).hex(), encode(Kind.PROBED).hex()) == ("0802", "0803")


def test_what_is_too_much_is_left_out() -> None:
    crowd = Proposal(STEADY, (bytes(MAX_ADDRESS + 1), *(b"a",) * 9))
    few = Proposal(STEADY, (b"a",) * MAX_ADDRESSES)
    assert decode(encode(crowd)) == few
    assert decode(encode(Proposal(STEADY, ())) + b"\x1a\x01a" * 9) == few


def test_a_mapping_of_a_later_version_is_unknown() -> None:
    assert decode(bytes.fromhex("0801" + "1009" + "1a0161")) == Proposal(UNKNOWN, (b"a",))


@given(st.sampled_from(Mapping), st.sampled_from(Mapping))
def test_both_ends_divide_alike(one: Mapping, other: Mapping) -> None:
    if one is not other:
        assert opens(one, other) == tuple(not first for first in opens(other, one))


def test_ports_near_those_that_were_seen_come_first() -> None:
    assert likely_ports([2000])[:4] == (2001, 1999, 2002, 1998)
    assert likely_ports([2000, 3000])[:4] == (2001, 1999, 3001, 2999)
    assert len(likely_ports([2000])) == AHEAD + BEHIND
    assert likely_ports([65535]) == tuple(range(65534, 65534 - BEHIND, -1))
    assert likely_ports([0]) == ()
