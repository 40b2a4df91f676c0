"""The Noise handshake that begins a connection: XX, with libp2p's payload (libp2p specs, noise).

    initiator                                 responder
    1. e ------------------------------------>
       <------------------------ 2. e, ee, s, es, payload
    3. s, se, payload ----------------------->

A payload shows the key of the peer id, its signature over the static key that only this protocol uses, and the
multiplexers that its sender speaks: where both speak one, none has to be negotiated (libp2p specs,
inlined-muxer-negotiation). In an extension of our own it says whether AES-GCM is faster for its sender than what libp2p
prescribes: where it is for both, that seals what follows the handshake. Others leave out what they don't know.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from peertunnel.protocols.envelope import Sign
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.noise import TAG, Cipher
from peertunnel.protocols.peerid import PeerIdError, multihash_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.publickey import PublicKey

_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"  # as long as a hash, so it is the first one
_SIGNED: Final = b"noise-libp2p-static-key:"
_KEY_BYTES = 32  # of X25519
_MAX_MUXERS = 16  # that a peer may name; there are three in the world
_MUXERS: Final = 2  # the extension of the muxer negotiation
_CIPHER: Final = 1025  # ours; above 1024 they are for experiments (libp2p specs, noise, "Noise extensions")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are in every handshake.

    peer_id: ours, of an Ed25519 key, base58. static: our key of this protocol. signature: of `sign_static`.
    muxers: the multiplexers that we speak, the best first. cipher: what we would rather seal with.
    """

    peer_id: str
    static: X25519PrivateKey
    signature: bytes
    muxers: tuple[str, ...]
    cipher: Cipher = Cipher.CHACHA_POLY


def sign_static(static: X25519PrivateKey, sign: Sign) -> bytes:
    """Have the key of our peer id sign our static key."""
    return sign(_SIGNED + static.public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class Secured:
    """What a handshake has come to.

    peer_id: whose key the peer has shown, base58. muxer: the multiplexer that both speak, None where the peer named
    none of ours. sending, receiving: the keys of the session (32 bytes each). cipher: what they are for.
    """

    peer_id: str
    muxer: str | None
    sending: bytes
    receiving: bytes
    cipher: Cipher = Cipher.CHACHA_POLY


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the peer has shown of itself."""

    peer_id: str
    muxers: tuple[str, ...]
    cipher: Cipher


class _Symmetric:
    """The hash of all that was said, and the keys that follow from what was agreed (Noise, section 5.2)."""

    def __init__(self) -> None:
        self._chain = _NAME
        self._hash = hashlib.sha256(_NAME).digest()  # the prologue, which is empty, is hashed, too
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chain, key = self._derive(secret)
        self._cipher, self._nonce = ChaCha20Poly1305(key), 0

    def seal(self, plaintext: bytes) -> bytes:
        sealed = plaintext
        if self._cipher is not None:
            sealed = self._cipher.encrypt(self._next_nonce(), plaintext, self._hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plaintext = sealed
        if self._cipher is not None:
            try:
                plaintext = self._cipher.decrypt(self._next_nonce(), sealed, self._hash)
            except InvalidTag:
                raise RemoteProtocolError("a message of the Noise handshake does not authenticate") from None
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the keys of the session: the initiator's for sending, and the responder's."""
        return self._derive(b"")

    def _next_nonce(self) -> bytes:
        nonce, self._nonce = self._nonce, self._nonce + 1
        return bytes(4) + nonce.to_bytes(8, "little")

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        key = hmac.digest(self._chain, secret, "sha256")
        first = hmac.digest(key, b"\x01", "sha256")
        return first, hmac.digest(key, first + b"\x02", "sha256")


class Handshake:
    """One end of a handshake: send what is `outgoing`, then `receive` a message, until it is `secured`.

    Args:
        credentials: who we are.
        ephemeral: a key that is used for nothing else.

    Attributes:
        secured: what it has come to, None before its end; `outgoing` may still be due.
    """

    def __init__(self, credentials: Credentials, ephemeral: X25519PrivateKey) -> None:
        self.secured: Secured | None = None
        self._credentials = credentials
        self._ephemeral = ephemeral
        self._symmetric = _Symmetric()
        self._due = b""

    def outgoing(self) -> bytes:
        """Return the message that is due now, behind its length; nothing where it is the peer's turn."""
        due, self._due = self._due, b""
        return due

    def receive(self, message: bytes) -> None:
        """Take the peer's message, without its length; raises RemoteProtocolError if it is wrong."""
        raise NotImplementedError

    def _our_ephemeral(self) -> bytes:
        key = self._ephemeral.public_key().public_bytes_raw()
        self._symmetric.mix_hash(key)
        return key

    def _their_ephemeral(self, message: bytes) -> X25519PublicKey:
        if len(message) < _KEY_BYTES:
            raise RemoteProtocolError("a message of the Noise handshake is too short")
        self._symmetric.mix_hash(message[:_KEY_BYTES])
        return X25519PublicKey.from_public_bytes(message[:_KEY_BYTES])

    def _their_static(self, sealed: bytes) -> X25519PublicKey:
        if len(sealed) < _KEY_BYTES + TAG:
            raise RemoteProtocolError("a message of the Noise handshake is too short")
        return X25519PublicKey.from_public_bytes(self._symmetric.open(sealed[: _KEY_BYTES + TAG]))

    def _agree(self, ours: X25519PrivateKey, theirs: X25519PublicKey) -> None:
        try:
            self._symmetric.mix_key(ours.exchange(theirs))
        except ValueError:
            raise RemoteProtocolError(
                "a key of the Noise handshake is one that agrees with every other"
            ) from None

    def _our_payload(self) -> bytes:
        ours = self._credentials
        extensions: list[tuple[int, bytes]] = [(_MUXERS, muxer.encode()) for muxer in ours.muxers]
        if ours.cipher is not Cipher.CHACHA_POLY:
            extensions.append((_CIPHER, ours.cipher.value.encode()))
        key = multihash_of(ours.peer_id)[2:]  # an identity multihash is the thing itself
        payload = encode_message([(1, key), (2, ours.signature), (4, encode_message(extensions))])
        return self._symmetric.seal(payload)

    def _their_payload(self, sealed: bytes, static: X25519PublicKey) -> _Shown:
        """Return who the peer is, and what it speaks."""
        payload = decode_message(self._symmetric.open(sealed))
        key = PublicKey.decode(payload.blob(1))
        key.verify(payload.blob(2), _SIGNED + static.public_bytes_raw())
        extensions = decode_message(payload.blob(4))
        names = extensions.blobs(_MUXERS)[:_MAX_MUXERS]
        wants_aes = extensions.blob(_CIPHER) == Cipher.AES_GCM.value.encode()
        cipher = Cipher.AES_GCM if wants_aes else Cipher.CHACHA_POLY
        try:
            return _Shown(key.peer_id, tuple(name.decode(errors="replace") for name in names), cipher)
        except PeerIdError as error:
            raise RemoteProtocolError(str(error)) from None


class Initiator(Handshake):
    """The end that begins."""

    def __init__(self, credentials: Credentials, ephemeral: X25519PrivateKey) -> None:
        super().__init__(credentials, ephemeral)
        self._due = _framed(self._our_ephemeral() + self._symmetric.seal(b""))

    def receive(self, message: bytes) -> None:
        """Take the peer's message, without its length; raises RemoteProtocolError if it is wrong."""
        ephemeral = self._their_ephemeral(message)
        self._agree(self._ephemeral, ephemeral)
        static = self._their_static(message[_KEY_BYTES:])
        self._agree(self._ephemeral, static)
        theirs = self._their_payload(message[2 * _KEY_BYTES + TAG :], static)
        ours = self._credentials
        sealed_static = self._symmetric.seal(ours.static.public_key().public_bytes_raw())
        self._agree(ours.static, ephemeral)
        self._due = _framed(sealed_static + self._our_payload())
        sending, receiving = self._symmetric.split()
        muxer, cipher = _choose(ours.muxers, theirs.muxers), _common(ours.cipher, theirs.cipher)
        self.secured = Secured(theirs.peer_id, muxer, sending, receiving, cipher)


class Responder(Handshake):
    """The end that was called."""

    def __init__(self, credentials: Credentials, ephemeral: X25519PrivateKey) -> None:
        super().__init__(credentials, ephemeral)
        self._has_begun = False

    def receive(self, message: bytes) -> None:
        """Take the peer's message, without its length; raises RemoteProtocolError if it is wrong."""
        if self._has_begun:
            self._conclude(message)
        else:
            self._has_begun = True
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        ephemeral = self._their_ephemeral(message)
        self._symmetric.open(
            message[_KEY_BYTES:]
        )  # nobody says anything there yet, and nobody could rely on it
        answer = self._our_ephemeral()
        self._agree(self._ephemeral, ephemeral)
        answer += self._symmetric.seal(self._credentials.static.public_key().public_bytes_raw())
        self._agree(self._credentials.static, ephemeral)
        self._due = _framed(answer + self._our_payload())

    def _conclude(self, message: bytes) -> None:
        static = self._their_static(message)
        self._agree(self._ephemeral, static)
        theirs, ours = self._their_payload(message[_KEY_BYTES + TAG :], static), self._credentials
        receiving, sending = self._symmetric.split()
        muxer, cipher = _choose(theirs.muxers, ours.muxers), _common(ours.cipher, theirs.cipher)
        self.secured = Secured(theirs.peer_id, muxer, sending, receiving, cipher)


def _choose(initiators: Sequence[str], responders: Sequence[str]) -> str | None:
    """Return the first of the initiator's multiplexers that the responder speaks, too."""
    return next((muxer for muxer in initiators if muxer in responders), None)


def _common(ours: Cipher, theirs: Cipher) -> Cipher:
    """Return the cipher that both want, or the one that all have."""
    return ours if ours is theirs else Cipher.CHACHA_POLY


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message
