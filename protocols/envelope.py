"""Signed envelopes: a payload, its type and a signature over both (libp2p specs, RFC 0002).

The signature also covers a domain that never travels, so that what was signed for one purpose serves no other.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import multihash_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.varint import encode_varint

MAX_ENVELOPE = 8192  # bytes; go-libp2p's limit for an identify message with a signed record in it
MAX_RSA_BITS = 8192  # go-libp2p's limit: larger keys only cost time

_INLINE_KEY = 42  # bytes; a key that is no longer stands in the peer id itself (libp2p specs, peer-ids)
_ED25519_ID = b"\x00\x24\x08\x01\x12\x20"  # identity multihash of an Ed25519 key's protobuf, without the key
_RSA, _ED25519, _SECP256K1, _ECDSA = range(4)  # KeyType of libp2p specs, peer-ids

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope. signer: a peer id as bytes. kind: the payload's type."""

    signer: bytes
    kind: bytes
    payload: bytes


def seal_envelope(payload: bytes, kind: bytes, domain: bytes, peer_id: str, sign: Sign) -> bytes:
    """Put a payload into an envelope.

    Args:
        payload: a message.
        kind: its type, a multicodec.
        domain: what it is signed for.
        peer_id: ours, of an Ed25519 key, base58.
        sign: signs with that key.

    Raises:
        LocalProtocolError: the peer id is of another kind, or the envelope gets too long.
    """
    multihash = multihash_of(peer_id)
    if not multihash.startswith(_ED25519_ID):
        raise LocalProtocolError("we sign with Ed25519 keys only")
    key = multihash[2:]  # an identity multihash is the thing itself
    envelope = encode_message([(1, key), (2, kind), (3, payload), (5, sign(_signed(domain, kind, payload)))])
    if len(envelope) > MAX_ENVELOPE:
        raise LocalProtocolError(f"an envelope has at most {MAX_ENVELOPE} bytes")
    return envelope


def open_envelope(envelope: bytes, domains: Mapping[bytes, bytes]) -> Opened:
    """Take the payload out of an envelope, once the signature is proven.

    Args:
        envelope: from a peer.
        domains: what a payload of each type that is welcome must be signed for.

    Raises:
        RemoteProtocolError: it is malformed, too long, of another type, or the signature is wrong.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise RemoteProtocolError(f"an envelope has at most {MAX_ENVELOPE} bytes")
    outer = decode_message(envelope)
    key, payload_type, payload = decode_message(outer.blob(1)), outer.blob(2), outer.blob(3)
    domain = domains.get(payload_type)
    if domain is None:
        raise RemoteProtocolError("an envelope holds something else than it should")
    kind, encoded = key.integer(1), key.blob(2)
    _verify(kind, encoded, outer.blob(5), _signed(domain, payload_type, payload))
    return Opened(_multihash(kind, encoded), payload_type, payload)


def _signed(domain: bytes, kind: bytes, payload: bytes) -> bytes:
    """Give what is signed: each part behind its length."""
    return b"".join(encode_varint(len(part)) + part for part in (domain, kind, payload))


def _multihash(kind: int, encoded: bytes) -> bytes:
    """Hash a public key in its one valid encoding: proto3 writers leave RSA's number, 0, out of the envelope's."""
    key = encode_message([(1, kind), (2, encoded)])
    if len(key) <= _INLINE_KEY:
        return bytes([0, len(key)]) + key
    return b"\x12\x20" + hashlib.sha256(key).digest()


def _verify(kind: int, encoded: bytes, signature: bytes, data: bytes) -> None:
    """Check a signature by a public key as libp2p specs, peer-ids, has it; raises RemoteProtocolError."""
    try:
        if kind == _ED25519:
            Ed25519PublicKey.from_public_bytes(encoded).verify(signature, data)
            return
        if kind == _SECP256K1:
            public: object = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), encoded)
        elif kind in (_RSA, _ECDSA):
            public = load_der_public_key(encoded)
        else:
            raise RemoteProtocolError(f"keys of type {kind} are unknown")
        if isinstance(public, rsa.RSAPublicKey) and kind == _RSA and public.key_size <= MAX_RSA_BITS:
            public.verify(signature, data, padding.PKCS1v15(), SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey) and kind != _RSA:
            public.verify(signature, data, ec.ECDSA(SHA256()))
        else:
            raise RemoteProtocolError("a public key is of another type than it says")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise RemoteProtocolError("an envelope's signature is wrong") from error
