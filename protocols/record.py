"""Peer records: where a peer is, signed by that peer (libp2p specs, RFC 0003), each in an envelope.

Two kinds are in use: Go, JavaScript and everybody after them write one that the RFC doesn't name; rust-libp2p up to
0.56 wants the one that it does. Addresses are the bytes of multiaddrs here: they are signed, so nobody may write them
anew.
"""

from dataclasses import dataclass
from enum import Enum

from peertunnel.protocols.envelope import MAX_ENVELOPE, Sign, open_envelope, seal_envelope
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, multihash_of, peer_id_of
from peertunnel.protocols.protobuf import decode_message, encode_message

__all__ = ["MAX_ADDRESSES", "MAX_ENVELOPE", "Form", "PeerRecord", "seal", "unseal"]

MAX_ADDRESSES = 128  # in a record; with names and hashes of certificates they don't fill an envelope


class Form(Enum):
    """A kind of envelope: its domain, and its payload's type."""

    STANDARD = (b"libp2p-peer-record", b"\x03\x01")  # the multicodec libp2p-peer-record
    LEGACY = (b"libp2p-routing-state", b"/libp2p/routing-state-record")  # RFC 0003; rust-libp2p to 0.56


_DOMAINS = {kind: domain for domain, kind in (form.value for form in Form)}


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a peer says it is.

    peer_id: in base58. sequence: the higher, the newer. addresses: multiaddrs as bytes.
    """

    peer_id: str
    sequence: int
    addresses: tuple[bytes, ...]


def seal(record: PeerRecord, sign: Sign, form: Form = Form.STANDARD) -> bytes:
    """Put a record into an envelope.

    Args:
        record: ours; the peer id is that of an Ed25519 key.
        sign: signs with that key.
        form: what the reader wants.

    Raises:
        LocalProtocolError: the peer id is of another kind, or the envelope gets too long.
    """
    domain, kind = form.value
    addresses = [(3, encode_message([(1, address)])) for address in record.addresses]
    payload = encode_message([(1, multihash_of(record.peer_id)), (2, record.sequence), *addresses])
    return seal_envelope(payload, kind, domain, record.peer_id, sign)


def unseal(envelope: bytes) -> PeerRecord:
    """Take the record out of an envelope of either form, once its signature and its peer id are proven.

    Raises:
        RemoteProtocolError: it is malformed, too long, or not signed by the peer that it is about.
    """
    opened = open_envelope(envelope, _DOMAINS)
    inner = decode_message(opened.payload)
    if inner.blob(1) != opened.signer:
        raise RemoteProtocolError("a peer record is signed by another peer")
    addresses = tuple(decode_message(address).blob(1) for address in inner.blobs(3))
    if len(addresses) > MAX_ADDRESSES:
        raise RemoteProtocolError(f"a peer record has at most {MAX_ADDRESSES} addresses")
    try:
        return PeerRecord(peer_id_of(inner.blob(1)), inner.integer(2), addresses)
    except PeerIdError as error:
        raise RemoteProtocolError(str(error)) from None
