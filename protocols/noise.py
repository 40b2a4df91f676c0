"""Noise transport records: plaintext sealed and opened in batches, without copies in between.

A record is a two-byte big-endian length and that many bytes of ciphertext (libp2p Noise spec, "Wire format"), which is
ChaCha20-Poly1305's unless both ends have said that AES-GCM is faster for them. `handshake` yields the keys and the cipher.
"""

from enum import Enum
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

MAX_RECORD = 65_535  # bytes behind the length; Noise Protocol Framework, section 3
TAG = 16  # bytes of Poly1305 tag at the end of every record
MAX_PLAINTEXT = MAX_RECORD - TAG  # bytes that fit into one record
OVERHEAD = 2 + TAG  # bytes that a record adds to its plaintext
_MAX_NONCE = 2**64 - 2  # the last nonce is reserved; Noise Protocol Framework, section 5.1
_LENGTH = Struct("!H")


class Cipher(Enum):
    """What seals the records; the value is its name in the Noise Protocol Framework, section 12."""

    CHACHA_POLY = "ChaChaPoly"
    AES_GCM = "AESGCM"  # with keys of 32 bytes, each good for 2**56 bytes (section 14)

    def with_key(self, key: bytes) -> ChaCha20Poly1305 | AESGCM:
        """Return the cipher with a key."""
        return ChaCha20Poly1305(key) if self is Cipher.CHACHA_POLY else AESGCM(key)

    @property
    def nonces(self) -> Struct:
        """How a counter becomes a nonce: the two write it in different orders (sections 12.3 and 12.4)."""
        return _LITTLE_ENDIAN if self is Cipher.CHACHA_POLY else _BIG_ENDIAN


_LITTLE_ENDIAN = Struct("<4xQ")
_BIG_ENDIAN = Struct(">4xQ")


def sealed_size(size: int) -> int:
    """Return how many bytes `size` bytes of plaintext take on the wire."""
    return size + OVERHEAD * -(-size // MAX_PLAINTEXT)


class Sealer:
    """The sending half of a Noise session: seals plaintext into records.

    Args:
        key: 32 bytes, from the handshake's Split().
        nonce: how many records this half has sealed so far.
        cipher: what the two ends have agreed on.
    """

    def __init__(self, key: bytes, nonce: int = 0, cipher: Cipher = Cipher.CHACHA_POLY) -> None:
        self._encrypt_into = cipher.with_key(key).encrypt_into
        self._pack_nonce = cipher.nonces.pack
        self._nonce = nonce

    def seal(self, plaintext: memoryview, out: memoryview, at: int) -> int:
        """Seal all of `plaintext` into `out` from offset `at`; return the offset behind the last record.

        Raises:
            LocalProtocolError: the nonces of this key are used up.
        """
        nonce, size, start = self._nonce, len(plaintext), 0
        encrypt_into, pack_nonce = self._encrypt_into, self._pack_nonce
        while start < size:
            if nonce > _MAX_NONCE:
                raise LocalProtocolError("the Noise session has used up its nonces")
            end = min(start + MAX_PLAINTEXT, size)
            length = end - start + TAG
            _LENGTH.pack_into(out, at, length)
            at += 2
            encrypt_into(pack_nonce(nonce), plaintext[start:end], None, out[at : at + length])
            nonce += 1
            at += length
            start = end
        self._nonce = nonce
        return at


class Opener:
    """The receiving half of a Noise session: opens records into plaintext.

    Args:
        key: 32 bytes, from the handshake's Split().
        nonce: how many records this half has opened so far.
        cipher: what the two ends have agreed on.
    """

    def __init__(self, key: bytes, nonce: int = 0, cipher: Cipher = Cipher.CHACHA_POLY) -> None:
        self._decrypt_into = cipher.with_key(key).decrypt_into
        self._pack_nonce = cipher.nonces.pack
        self._nonce = nonce

    def open(self, received: memoryview, plaintext: memoryview) -> tuple[int, int]:
        """Open the complete records of `received` one behind the other into `plaintext`.

        Stops at the first record that is incomplete or that `plaintext` has no room for.

        Returns:
            How many bytes of `received` were consumed, and how many of `plaintext` were filled.

        Raises:
            RemoteProtocolError: a record is too short or was not sealed with this key and nonce.
        """
        nonce, size, room = self._nonce, len(received), len(plaintext)
        decrypt_into, pack_nonce = self._decrypt_into, self._pack_nonce
        consumed = filled = 0
        while size - consumed >= 2:
            length = received[consumed] << 8 | received[consumed + 1]
            start, end = consumed + 2, consumed + 2 + length
            if length < TAG:
                raise RemoteProtocolError("a Noise record is shorter than its tag")
            if end > size or filled + length - TAG > room:
                break
            if nonce > _MAX_NONCE:
                raise RemoteProtocolError("the peer has used up its Noise nonces")
            try:
                decrypt_into(
                    pack_nonce(nonce), received[start:end], None, plaintext[filled : filled + length - TAG]
                )
            except InvalidTag:
                raise RemoteProtocolError("a Noise record does not authenticate") from None
            nonce += 1
            filled += length - TAG
            consumed = end
        self._nonce = nonce
        return consumed, filled
