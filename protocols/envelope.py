"""Signed envelopes: a payload, its type and a signature over both (libp2p specs, RFC 0002).

The signature also covers a domain that never travels, so that what was signed for one purpose serves no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import multihash_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.publickey import PublicKey
from peertunnel.protocols.varint import encode_varint

MAX_ENVELOPE = 8192  # bytes; go-libp2p's limit for an identify message with a signed record in it

_ED25519_ID = b"\x00\x24\x08\x01\x12\x20"  # identity multihash of an Ed25519 key's protobuf, without the key

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
    key, payload_type, payload = PublicKey.decode(outer.blob(1)), outer.blob(2), outer.blob(3)
    domain = domains.get(payload_type)
    if domain is None:
        raise RemoteProtocolError("an envelope holds something else than it should")
    key.verify(outer.blob(5), _signed(domain, payload_type, payload))
    return Opened(key.multihash, payload_type, payload)


def _signed(domain: bytes, kind: bytes, payload: bytes) -> bytes:
    """Give what is signed: each part behind its length."""
    return b"".join(encode_varint(len(part)) + part for part in (domain, kind, payload))
