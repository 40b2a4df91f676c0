"""What the client of a relay says and reads on HOP: it reserves, or connects to a peer that has reserved."""

from dataclasses import dataclass

from peertunnel.protocols.circuit.messages import (
    HopKind,
    Limit,
    check_status,
    decode_limit,
    encode_peer,
    kind_of,
)
from peertunnel.protocols.circuit.voucher import Voucher, unseal_voucher
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import Fields, decode_message, encode_message

MAX_ADDRESSES = 32  # of a relay that are looked at; go-libp2p and rust-libp2p rarely tell more than 10
MAX_ADDRESS = 256  # bytes; as for the peers of a DHT


@dataclass(frozen=True, slots=True)
class Reservation:
    """A relay's promise to pass circuits on to us while the connection stands.

    Attributes:
        expires_at: UNIX time, seconds, by the relay's clock.
        addresses: the relay's, multiaddrs as bytes, mostly ending in /p2p/ and its id; never in /p2p-circuit.
        voucher: its signed word, if it gave one.
        limit: of each circuit, None for none.
    """

    expires_at: int
    addresses: tuple[bytes, ...]
    voucher: Voucher | None
    limit: Limit | None


def reserve() -> bytes:
    """Write a request for a reservation, new or renewed."""
    return encode_message([(1, int(HopKind.RESERVE))])


def read_reservation(message: bytes, relay: str, peer: str) -> Reservation:
    """Read the answer to `reserve`.

    Args:
        message: the answer.
        relay: the relay's peer id, base58.
        peer: ours.

    Raises:
        CircuitRefused: the relay doesn't want to.
        RemoteProtocolError: it answers nonsense, or its voucher is wrong.
    """
    fields = _answer(message)
    if 3 not in fields:
        raise RemoteProtocolError("a relay grants a reservation and doesn't tell it")
    inner = decode_message(fields.blob(3))
    addresses = [address for address in inner.blobs(2) if 0 < len(address) <= MAX_ADDRESS]
    voucher = unseal_voucher(inner.blob(3)) if inner.blob(3) else None
    if voucher is not None and (voucher.relay, voucher.peer) != (relay, peer):
        raise RemoteProtocolError("a voucher is about other peers")
    limit = decode_limit(fields, 4)
    return Reservation(inner.integer(1), tuple(addresses[:MAX_ADDRESSES]), voucher, limit)


def connect(peer: str) -> bytes:
    """Write a request for a circuit to a peer (base58)."""
    return encode_message([(1, int(HopKind.CONNECT)), (2, encode_peer(peer))])


def read_connected(message: bytes) -> Limit | None:
    """Read the answer to `connect`: the circuit stands, and the limit is its own.

    Raises:
        CircuitRefused: it doesn't; the status tells why.
        RemoteProtocolError: the relay answers nonsense.
    """
    return decode_limit(_answer(message), 4)


def _answer(message: bytes) -> Fields:
    fields = decode_message(message)
    if kind_of(fields) != HopKind.STATUS:
        raise RemoteProtocolError("a relay's answer is none")
    check_status(fields.integer(5))
    return fields
