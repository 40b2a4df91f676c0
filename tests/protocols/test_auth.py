"""The proof of a secret, message by message: two honest ends agree, and nobody else gets anywhere."""

import os
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.auth import (
    MAX_MESSAGE,
    Entropy,
    Opener,
    ProofFailed,
    Responder,
    Role,
    accepted,
    password_of,
)
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import encode_message

SECRET = password_of(b"s" * 32)
ALICE, BOB, MALLORY = "alice", "bob", "mallory"
BOTH_ROLES = pytest.mark.parametrize("role", list(Role))


def counting(first: int) -> Entropy:
    """Give bytes that are the same in each run."""
    return lambda size: bytes((first + index) % 256 for index in range(size))


def opener(role: Role = Role.CONSUMER, password: bytes = SECRET, theirs: str = BOB) -> Opener:
    """Make Alice's end."""
    return Opener(role, password, ALICE, theirs, os.urandom)


def responder(role: Role = Role.PROVIDER, password: bytes = SECRET, theirs: str = ALICE) -> Responder:
    """Make Bob's end."""
    return Responder(role, password, BOB, theirs, os.urandom)


@BOTH_ROLES
def test_two_ends_that_know_the_secret_agree(role: Role) -> None:
    alice, bob = opener(role), responder(role.other)
    bob.confirm(alice.receive(bob.receive(alice.hello())))


@BOTH_ROLES
def test_a_wrong_secret_fails_at_both_ends(role: Role) -> None:
    alice, bob = opener(role, password_of(b"x" * 32)), responder(role.other)
    reply = bob.receive(alice.hello())
    with pytest.raises(ProofFailed):
        alice.receive(reply)
    with pytest.raises(ProofFailed):
        bob.confirm(encode_message([(1, bytes(32))]))


def test_the_messages_are_these() -> None:
    """Vectors: who changes what is sent or what goes into the key breaks every other version."""
    alice = Opener(Role.CONSUMER, SECRET, ALICE, BOB, counting(1))
    bob = Responder(Role.PROVIDER, SECRET, BOB, ALICE, counting(99))
    hello = alice.hello()
    reply = bob.receive(hello)
    confirm = alice.receive(reply)
    assert (hello.hex(), reply.hex(), confirm.hex()) == VECTOR
    bob.confirm(confirm)


VECTOR = (
    "080112214128cbb2cda03f6dcbd8b22dce641004cad02b4b6792b009b7b3706b600b7b0512",
    (
        "0a21421623e292418ed780132993f711f69e71ad0749a67279209a63c97757b7c8b0771220df41a321c1172c950f7d31"
        "8c5d08555af5357c56aef8d955bfbf7bcae589d0a6"
    ),
    "0a2024b4ba95d52e7e9aa1e6d2c9c19d7fd77ad8e35c50b5ff055f8b75f57241d855",
)


@dataclass(frozen=True)
class _Twist:
    """What differs between what the two ends take for granted."""

    role: Role = Role.PROVIDER
    alices_peer: str = BOB
    bobs_peer: str = ALICE


@pytest.mark.parametrize(
    "twist",
    [_Twist(alices_peer=MALLORY), _Twist(bobs_peer=MALLORY), _Twist(alices_peer=MALLORY, bobs_peer=MALLORY)],
)
def test_a_third_peer_cannot_pass_messages_on(twist: _Twist) -> None:
    """Mallory is connected to both, and hands every message over unchanged."""
    alice, bob = opener(theirs=twist.alices_peer), responder(theirs=twist.bobs_peer)
    with pytest.raises(ProofFailed):
        alice.receive(bob.receive(alice.hello()))


@BOTH_ROLES
def test_both_ends_cannot_have_the_same_role(role: Role) -> None:
    with pytest.raises(ProofFailed):
        responder(role).receive(opener(role).hello())


@BOTH_ROLES
def test_a_reflected_hello_fails(role: Role) -> None:
    """An attacker without the secret sends back what it gets."""
    alice = opener(role)
    reflected = encode_message([(1, alice.hello()[4:]), (2, bytes(32))])
    with pytest.raises(ProofFailed):
        alice.receive(reflected)


def test_a_replayed_exchange_fails() -> None:
    alice, bob = opener(), responder()
    hello = alice.hello()
    confirm = alice.receive(bob.receive(hello))
    bob.confirm(confirm)
    again = responder()
    again.receive(hello)
    with pytest.raises(ProofFailed):
        again.confirm(confirm)


def test_the_responders_confirmation_is_not_the_openers() -> None:
    alice, bob = opener(), responder()
    reply = bob.receive(alice.hello())
    with pytest.raises(ProofFailed):
        bob.confirm(encode_message([(1, reply[-32:])]))


def test_nothing_is_confirmed_before_the_hello() -> None:
    with pytest.raises(ProofFailed):
        responder().confirm(encode_message([(1, bytes(32))]))


def test_another_version_is_refused() -> None:
    hello = b"\x08\x02" + opener().hello()[2:]
    with pytest.raises(ProofFailed, match="version 2"):
        responder().receive(hello)


@given(st.data())
def test_a_changed_byte_anywhere_fails(data: st.DataObject) -> None:
    alice, bob = opener(), responder()
    which = data.draw(st.integers(0, 2))

    def change(message: bytes) -> bytes:
        place, bits = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(1, 255))
        return message[:place] + bytes([message[place] ^ bits]) + message[place + 1 :]

    hello = alice.hello()
    with pytest.raises(RemoteProtocolError):
        reply = bob.receive(change(hello) if which == 0 else hello)
        confirm = alice.receive(change(reply) if which == 1 else reply)
        bob.confirm(change(confirm) if which == 2 else confirm)


@given(st.binary(max_size=MAX_MESSAGE))
def test_any_bytes_are_refused(data: bytes) -> None:
    bob = responder()
    for take in (opener().receive, bob.receive, bob.confirm):
        with pytest.raises(RemoteProtocolError):
            take(data)


@pytest.mark.parametrize("element", [b"\1" + bytes(31), bytes(32), b"\xff" * 32, b"\xea" * 32])
@pytest.mark.parametrize("side", [b"A", b"B", b"S"])
def test_an_element_outside_the_group_is_refused(side: bytes, element: bytes) -> None:
    with pytest.raises(ProofFailed):
        responder().receive(encode_message([(1, 1), (2, side + element)]))
    with pytest.raises(ProofFailed):
        opener().receive(encode_message([(1, side + element), (2, bytes(32))]))


def test_messages_fit_the_limit() -> None:
    alice, bob = opener(), responder()
    reply = bob.receive(alice.hello())
    assert max(map(len, (alice.hello(), reply, alice.receive(reply), accepted()))) <= MAX_MESSAGE
