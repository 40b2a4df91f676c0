"""The Noise handshake against the noise library in either role, and with ourselves; and hostile messages."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.handshake import Credentials, Handshake, Initiator, Responder, Secured, sign_static
from peertunnel.protocols.noise import Cipher
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.protobuf import decode_message, encode_message

YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
KEY_BYTES, TAG = 32, 16
# The handshake's first message and its answer, in bytes: e; e, s with its tag.
FIRST, ANSWER = KEY_BYTES, 2 * KEY_BYTES + TAG


def identity(*muxers: str) -> Credentials:
    """Make somebody who speaks these multiplexers."""
    key, static = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    peer_id = ed25519_peer_id(key.public_key().public_bytes_raw())
    return Credentials(peer_id, static, sign_static(static, key.sign), muxers)


def begin(role: type[Handshake], credentials: Credentials) -> Handshake:
    return role(credentials, X25519PrivateKey.generate())


def message(handshake: Handshake) -> bytes:
    """Return the message that is due, without its length, which must be right."""
    framed = handshake.outgoing()
    assert int.from_bytes(framed[:2]) == len(framed) - 2 > 0
    assert handshake.outgoing() == b""
    return framed[2:]


def shake_hands(one: Credentials, other: Credentials) -> tuple[Secured, Secured]:
    initiator, responder = begin(Initiator, one), begin(Responder, other)
    assert responder.outgoing() == b""
    responder.receive(message(initiator))
    assert initiator.secured is None is responder.secured
    initiator.receive(message(responder))
    responder.receive(message(initiator))
    assert initiator.secured is not None and responder.secured is not None
    return initiator.secured, responder.secured


def library(credentials: Credentials) -> NoiseConnection:
    """Give the other end, which knows nothing of libp2p."""
    state = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    state.set_keypair_from_private_bytes(Keypair.STATIC, credentials.static.private_bytes_raw())
    return state


def payload(credentials: Credentials, *, key: bytes | None = None, signature: bytes | None = None) -> bytes:
    """Write what a peer that names no multiplexers shows, as py-libp2p and rust-libp2p do."""
    ours = Ed25519PrivateKey.generate()
    public = key or encode_message([(1, 1), (2, ours.public_key().public_bytes_raw())])
    signed = signature or sign_static(credentials.static, ours.sign)
    return encode_message([(1, public), (2, signed)])


@pytest.mark.parametrize(
    ("initiators", "responders", "chosen"),
    [
        ((YAMUX,), (YAMUX,), YAMUX),
        ((MPLEX, YAMUX), (YAMUX, MPLEX), MPLEX),  # the initiator's order counts, at both ends
        ((YAMUX, MPLEX), (MPLEX,), MPLEX),
        ((YAMUX,), (), None),
        ((), (YAMUX,), None),
        ((YAMUX,), (MPLEX,), None),
    ],
)
def test_both_know_each_other_and_the_same_multiplexer(
    initiators: tuple[str, ...], responders: tuple[str, ...], chosen: str | None
) -> None:
    one, other = identity(*initiators), identity(*responders)
    first, second = shake_hands(one, other)
    assert (first.peer_id, second.peer_id) == (other.peer_id, one.peer_id)
    assert (first.sending, first.receiving) == (second.receiving, second.sending)
    assert first.sending != first.receiving
    assert first.muxer == second.muxer == chosen


@pytest.mark.parametrize("one", Cipher)
@pytest.mark.parametrize("other", Cipher)
def test_aes_gcm_seals_where_both_want_it(one: Cipher, other: Cipher) -> None:
    first, second = shake_hands(replace(identity(), cipher=one), replace(identity(), cipher=other))
    wanted = Cipher.AES_GCM if one is other is Cipher.AES_GCM else Cipher.CHACHA_POLY
    assert first.cipher is second.cipher is wanted


@pytest.mark.parametrize(
    ("extensions", "cipher"),
    [
        ([(1025, b"AESGCM")], Cipher.AES_GCM),
        ([(1025, b"AESGCM2")], Cipher.CHACHA_POLY),
        ([(1025, b"")], Cipher.CHACHA_POLY),
        ([(1024, b"AESGCM"), (1, b"AESGCM")], Cipher.CHACHA_POLY),
    ],
)
def test_what_a_peer_wants_beside_is_no_obstacle(extensions: list[tuple[int, bytes]], cipher: Cipher) -> None:
    ours, theirs = replace(identity(), cipher=Cipher.AES_GCM), identity()
    initiator, responder = begin(Initiator, ours), library(theirs)
    responder.set_as_responder()
    responder.start_handshake()
    responder.read_message(message(initiator))
    shown = payload(theirs) + encode_message([(4, encode_message(extensions))])
    initiator.receive(bytes(responder.write_message(shown)))
    ours_shown = decode_message(responder.read_message(message(initiator)))
    assert decode_message(ours_shown.blob(4)).blobs(1025) == [b"AESGCM"]
    assert initiator.secured is not None and initiator.secured.cipher is cipher


def test_a_number_where_a_cipher_belongs_is_refused() -> None:
    theirs = identity()
    initiator, responder = begin(Initiator, identity()), library(theirs)
    responder.set_as_responder()
    responder.start_handshake()
    responder.read_message(message(initiator))
    shown = payload(theirs) + encode_message([(4, encode_message([(1025, 1)]))])
    with pytest.raises(RemoteProtocolError):
        initiator.receive(bytes(responder.write_message(shown)))


def test_as_initiator_with_the_library() -> None:
    ours, theirs = identity(YAMUX), identity()
    initiator, responder = begin(Initiator, ours), library(theirs)
    responder.set_as_responder()
    responder.start_handshake()
    assert responder.read_message(message(initiator)) == b""
    initiator.receive(bytes(responder.write_message(payload(theirs))))
    shown = decode_message(responder.read_message(message(initiator)))
    assert [decode_message(extensions).blobs(2) for extensions in shown.blobs(4)] == [[YAMUX.encode()]]
    secured = initiator.secured
    assert secured is not None and secured.muxer is None
    ciphers = responder.noise_protocol
    assert secured.sending == ciphers.cipher_state_decrypt.k
    assert secured.receiving == ciphers.cipher_state_encrypt.k


def test_as_responder_with_the_library() -> None:
    ours, theirs = identity(YAMUX), identity()
    initiator, responder = library(theirs), begin(Responder, ours)
    initiator.set_as_initiator()
    initiator.start_handshake()
    responder.receive(bytes(initiator.write_message(b"")))
    shown = decode_message(initiator.read_message(message(responder)))
    assert [decode_message(extensions).blobs(2) for extensions in shown.blobs(4)] == [[YAMUX.encode()]]
    responder.receive(bytes(initiator.write_message(payload(theirs))))
    secured = responder.secured
    assert secured is not None and secured.muxer is None
    ciphers = initiator.noise_protocol
    assert secured.sending == ciphers.cipher_state_decrypt.k
    assert secured.receiving == ciphers.cipher_state_encrypt.k


def _other_key(peer: Credentials) -> bytes:
    return payload(peer, signature=sign_static(peer.static, Ed25519PrivateKey.generate().sign))


def _other_static(peer: Credentials) -> bytes:
    key = Ed25519PrivateKey.generate()
    public = encode_message([(1, 1), (2, key.public_key().public_bytes_raw())])
    return payload(peer, key=public, signature=sign_static(X25519PrivateKey.generate(), key.sign))


@pytest.mark.parametrize(
    "show",
    [
        _other_key,
        _other_static,
        lambda peer: b"",
        lambda peer: b"\xff" * 40,
        lambda peer: payload(peer, key=encode_message([(1, 9), (2, b"k" * 32)])),
    ],
    ids=["signed by another key", "another static key is signed", "nothing", "no message", "an unknown key"],
)
def test_who_does_not_prove_its_peer_id_is_refused(show: Callable[[Credentials], bytes]) -> None:
    theirs = identity()
    initiator, responder = library(theirs), begin(Responder, identity(YAMUX))
    initiator.set_as_initiator()
    initiator.start_handshake()
    responder.receive(bytes(initiator.write_message(b"")))
    initiator.read_message(message(responder))
    with pytest.raises(RemoteProtocolError):
        responder.receive(bytes(initiator.write_message(show(theirs))))
    assert responder.secured is None


@given(st.data())
def test_a_message_that_was_touched_is_refused(data: st.DataObject) -> None:
    """Any byte, of either end's message; or one cut short."""
    initiator, responder = begin(Initiator, identity(YAMUX)), begin(Responder, identity(YAMUX))
    responder.receive(message(initiator))
    answer = bytearray(message(responder))
    takes: Handshake = initiator
    if data.draw(st.booleans()):
        initiator.receive(bytes(answer))
        answer, takes = bytearray(message(initiator)), responder
    place = data.draw(st.integers(0, len(answer) - 1))
    if data.draw(st.booleans()):
        del answer[place:]
    else:
        # The highest bit of an X25519 key counts for nothing but in the hash of all that was said.
        answer[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        takes.receive(bytes(answer))
    assert takes.secured is None


@pytest.mark.parametrize("key", [bytes(KEY_BYTES), b"\x01" + bytes(KEY_BYTES - 1)])
def test_a_key_that_agrees_with_every_other_is_refused(key: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="agrees with every other"):
        begin(Responder, identity()).receive(key)
    with pytest.raises(RemoteProtocolError, match="agrees with every other"):
        begin(Initiator, identity()).receive(key + bytes(ANSWER - KEY_BYTES))


@given(st.binary(max_size=FIRST - 1))
def test_a_first_message_without_a_key_is_refused(begun: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="too short"):
        begin(Responder, identity()).receive(begun)
