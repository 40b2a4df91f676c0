"""Reservation vouchers: a relay's word, signed, that it serves a peer (libp2p specs, relay/circuit-v2, "Reservation
Vouchers"). Nobody asks for one yet; Go's clients drop a reservation whose voucher is wrong, and so do we.
"""

from dataclasses import dataclass

from peertunnel.protocols.envelope import Sign, open_envelope, seal_envelope
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, multihash_of, peer_id_of
from peertunnel.protocols.protobuf import decode_message, encode_message

DOMAIN = b"libp2p-relay-rsvp"
KIND = b"\x03\x02"  # the multicodec libp2p-relay-rsvp


@dataclass(frozen=True, slots=True)
class Voucher:
    """A relay serves a peer. relay, peer: peer ids, base58. expires_at: UNIX time, seconds."""

    relay: str
    peer: str
    expires_at: int


def seal_voucher(voucher: Voucher, sign: Sign) -> bytes:
    """Write a voucher of ours. sign: signs with the relay's Ed25519 key."""
    relay, peer = multihash_of(voucher.relay), multihash_of(voucher.peer)
    payload = encode_message([(1, relay), (2, peer), (3, voucher.expires_at)])
    return seal_envelope(payload, KIND, DOMAIN, voucher.relay, sign)


def unseal_voucher(envelope: bytes) -> Voucher:
    """Read a voucher, once it is proven that the relay in it has signed it; raises RemoteProtocolError."""
    opened = open_envelope(envelope, {KIND: DOMAIN})
    fields = decode_message(opened.payload)
    if fields.blob(1) != opened.signer:
        raise RemoteProtocolError("a voucher is signed by another peer than its relay")
    try:
        return Voucher(peer_id_of(fields.blob(1)), peer_id_of(fields.blob(2)), fields.integer(3))
    except PeerIdError as error:
        raise RemoteProtocolError(str(error)) from None
