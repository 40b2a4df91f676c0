"""Peer ids as text: a multihash in base58, or a CID in base32 (libp2p specs, peer-ids)."""

import base64
import binascii

from peertunnel.protocols.errors import LocalProtocolError

MAX_TEXT = 67  # characters: "b" and a secp256k1 key's CID (41 bytes) in base32
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
_CID = b"\x01\x72"  # CIDv1, multicodec libp2p-key
_ED25519 = b"\x00\x24\x08\x01\x12\x20"  # identity multihash of the public key's protobuf
_SECP256K1 = b"\x00\x25\x08\x02\x12\x21"
_SHA256 = b"\x12\x20"  # for keys too long to stand in the id itself, such as RSA
_FORMS = ((_ED25519, 32), (_SECP256K1, 33), (_SHA256, 32))


class PeerIdError(LocalProtocolError):
    """The text is not a peer id."""


def parse_peer_id(text: str) -> str:
    """Read a peer id in either text form and give it in base58; raises PeerIdError."""
    if len(text) > MAX_TEXT:  # base58 costs the square of its length
        raise PeerIdError(f"a peer id has at most {MAX_TEXT} characters")
    multihash = _from_base58(text) if text.startswith(("1", "Qm")) else _from_cid(text)
    if not _is_peer_id(multihash):
        raise PeerIdError(f"{text!r} is not a peer id")
    return _to_base58(multihash)


def peer_id_of(multihash: bytes) -> str:
    """Give the peer id that messages carry as bytes, in base58; raises PeerIdError."""
    if not _is_peer_id(multihash):
        raise PeerIdError("a peer id is the hash of a public key")
    return _to_base58(multihash)


def multihash_of(peer_id: str) -> bytes:
    """Give a peer id (base58) as the bytes that messages carry."""
    return _from_base58(peer_id)


def ed25519_peer_id(public_key: bytes) -> str:
    """Give the peer id of an Ed25519 public key (32 bytes), in base58."""
    return _to_base58(_ED25519 + public_key)


def short_peer_id(peer_id: str) -> str:
    """Abbreviate a base58 peer id for people: an Ed25519 id's first eight characters say only its type."""
    return f"…{peer_id[-8:]}"


def _is_peer_id(multihash: bytes) -> bool:
    return any(multihash.startswith(head) and len(multihash) == len(head) + size for head, size in _FORMS)


def _from_cid(text: str) -> bytes:
    body = text[1:].upper()
    try:
        cid = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        raise PeerIdError(f"{text!r} is not a peer id") from None
    if text[:1] != "b" or not text.islower() or not cid.startswith(_CID):
        raise PeerIdError(f"{text!r} is not a peer id")
    return cid.removeprefix(_CID)


def _from_base58(text: str) -> bytes:
    value = 0
    for letter in text:
        if letter not in _DIGITS:
            raise PeerIdError(f"{text!r} is not a peer id: {letter!r} is no base58 digit")
        value = value * 58 + _DIGITS[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8)


def _to_base58(data: bytes) -> str:
    value, letters = int.from_bytes(data), ""
    while value:
        value, digit = divmod(value, 58)
        letters = _ALPHABET[digit] + letters
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + letters
