"""Peer records: where a peer is, signed by that peer (libp2p specs, RFC 0002 and RFC 0003).

A record travels in an envelope: the signer's public key, the kind of payload, the payload, and a signature over the
last two behind a domain, so that it serves no other purpose. Two kinds are in use: Go, JavaScript and everybody after
them write one that the RFC doesn't name; rust-libp2p up to 0.56 wants the one that it does.
Addresses are the bytes of multiaddrs here: they are signed, so nobody may write them anew.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, multihash_of, peer_id_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.varint import encode_varint

MAX_ENVELOPE = 8192  # bytes; go-libp2p's limit for an identify message with a signed record in it
MAX_ADDRESSES = 128  # in a record; with names and hashes of certificates they don't fill an envelope
MAX_RSA_BITS = 8192  # go-libp2p's limit: larger keys only cost time

_INLINE_KEY = 42  # bytes; a key that is no longer stands in the peer id itself (libp2p specs, peer-ids)
_ED25519_ID = b"\x00\x24\x08\x01\x12\x20"  # identity multihash of an Ed25519 key's protobuf, without the key
_RSA, _ED25519, _SECP256K1, _ECDSA = range(4)  # KeyType of libp2p specs, peer-ids


class Form(Enum):
    """A kind of envelope: its domain, and its payload's type."""

    STANDARD = (b"libp2p-peer-record", b"\x03\x01")  # the multicodec libp2p-peer-record
    LEGACY = (b"libp2p-routing-state", b"/libp2p/routing-state-record")  # RFC 0003; rust-libp2p to 0.56


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a peer says it is.

    peer_id: in base58. sequence: the higher, the newer. addresses: multiaddrs as bytes.
    """

    peer_id: str
    sequence: int
    addresses: tuple[bytes, ...]


def seal(record: PeerRecord, sign: Callable[[bytes], bytes], form: Form = Form.STANDARD) -> bytes:
    """Put a record into an envelope.

    Args:
        record: ours; the peer id is that of an Ed25519 key.
        sign: signs with that key.
        form: what the reader wants.

    Raises:
        LocalProtocolError: the peer id is of another kind, or the envelope gets too long.
    """
    multihash = multihash_of(record.peer_id)
    if not multihash.startswith(_ED25519_ID):
        raise LocalProtocolError("we sign with Ed25519 keys only")
    domain, kind = form.value
    addresses = [(3, encode_message([(1, address)])) for address in record.addresses]
    payload = encode_message([(1, multihash), (2, record.sequence), *addresses])
    key = multihash[2:]  # an identity multihash is the thing itself
    envelope = encode_message([(1, key), (2, kind), (3, payload), (5, sign(_signed(domain, kind, payload)))])
    if len(envelope) > MAX_ENVELOPE:
        raise LocalProtocolError(f"a record's envelope has at most {MAX_ENVELOPE} bytes")
    return envelope


def unseal(envelope: bytes) -> PeerRecord:
    """Take the record out of an envelope of either form, once its signature and its peer id are proven.

    Raises:
        RemoteProtocolError: it is malformed, too long, or not signed by the peer that it is about.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise RemoteProtocolError(f"a record's envelope has at most {MAX_ENVELOPE} bytes")
    outer = decode_message(envelope)
    key, payload_type, payload = decode_message(outer.blob(1)), outer.blob(2), outer.blob(3)
    domain = next((form.value[0] for form in Form if form.value[1] == payload_type), None)
    if domain is None:
        raise RemoteProtocolError("an envelope holds something else than a peer record")
    kind, encoded = key.integer(1), key.blob(2)
    _verify(kind, encoded, outer.blob(5), _signed(domain, payload_type, payload))
    inner = decode_message(payload)
    if inner.blob(1) != _multihash(kind, encoded):
        raise RemoteProtocolError("a peer record is signed by another peer")
    addresses = tuple(decode_message(address).blob(1) for address in inner.blobs(3))
    if len(addresses) > MAX_ADDRESSES:
        raise RemoteProtocolError(f"a peer record has at most {MAX_ADDRESSES} addresses")
    try:
        return PeerRecord(peer_id_of(inner.blob(1)), inner.integer(2), addresses)
    except PeerIdError as error:
        raise RemoteProtocolError(str(error)) from None


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
        raise RemoteProtocolError("a peer record's signature is wrong") from error
