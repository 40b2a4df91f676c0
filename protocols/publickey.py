"""Public keys as libp2p writes them: a type and its encoding (libp2p specs, peer-ids)."""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import peer_id_of
from peertunnel.protocols.protobuf import decode_message, encode_message

MAX_RSA_BITS = 8192  # go-libp2p's limit: larger keys only cost time
MAX_RSA_EXPONENT = 2**31 - 1  # Go's limit: 65537 is usual, and one as long as the key costs 50 times as much

_INLINE_KEY = 42  # bytes; a key that is no longer stands in the peer id itself (libp2p specs, peer-ids)
_RSA, _ED25519, _SECP256K1, _ECDSA = range(4)  # KeyType of libp2p specs, peer-ids


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    kind: its type's number. encoded: the key, in the form that its type has.
    """

    kind: int
    encoded: bytes

    @classmethod
    def decode(cls, message: bytes) -> "PublicKey":
        """Read the protobuf; raises RemoteProtocolError when it is malformed."""
        fields = decode_message(message)
        return cls(fields.integer(1), fields.blob(2))

    @property
    def multihash(self) -> bytes:
        """The peer id as bytes, from the one valid encoding: proto3 writers leave RSA's number, 0, out."""
        key = encode_message([(1, self.kind), (2, self.encoded)])
        if len(key) <= _INLINE_KEY:
            return bytes([0, len(key)]) + key
        return b"\x12\x20" + hashlib.sha256(key).digest()

    @property
    def peer_id(self) -> str:
        """The peer id in base58; raises PeerIdError for keys of unknown types."""
        return peer_id_of(self.multihash)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature; raises RemoteProtocolError if this key did not make it."""
        try:
            if self.kind == _ED25519:
                Ed25519PublicKey.from_public_bytes(self.encoded).verify(signature, data)
                return
            if self.kind == _SECP256K1:
                public: object = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), self.encoded)
            elif self.kind in (_RSA, _ECDSA):
                public = load_der_public_key(self.encoded)
            else:
                raise RemoteProtocolError(f"keys of type {self.kind} are unknown")
            if isinstance(public, rsa.RSAPublicKey) and self.kind == _RSA and is_cheap(public):
                public.verify(signature, data, padding.PKCS1v15(), SHA256())
            elif isinstance(public, ec.EllipticCurvePublicKey) and self.kind != _RSA:
                public.verify(signature, data, ec.ECDSA(SHA256()))
            else:
                raise RemoteProtocolError("a public key is of another type than it says, or too large")
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise RemoteProtocolError("a signature is wrong") from error


def is_cheap(key: rsa.RSAPublicKey) -> bool:
    """Return whether a key's signatures are worth checking."""
    return key.key_size <= MAX_RSA_BITS and key.public_numbers().e <= MAX_RSA_EXPONENT
