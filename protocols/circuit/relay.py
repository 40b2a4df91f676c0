"""What a relay reads and says: requests and answers on HOP, calls on STOP."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from peertunnel.protocols.circuit.messages import (
    MAX_MESSAGE,
    HopKind,
    Limit,
    Status,
    StopKind,
    check_status,
    decode_peer,
    encode_limit,
    encode_peer,
    kind_of,
)
from peertunnel.protocols.circuit.voucher import Voucher, seal_voucher
from peertunnel.protocols.envelope import Sign
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message

MAX_ADDRESSES = 16  # of ours that we tell
_ROOM = MAX_MESSAGE - 512  # bytes for them; the voucher, the limit and what is around them take some 250


@dataclass(frozen=True, slots=True)
class Reserve:
    """A peer wants to be reached through us."""


@dataclass(frozen=True, slots=True)
class Connect:
    """A peer wants to reach another one (base58) through us."""

    peer: str


Request: TypeAlias = Reserve | Connect


def read_request(message: bytes) -> Request:
    """Read a request on HOP; raises RemoteProtocolError, which MALFORMED_MESSAGE answers."""
    fields = decode_message(message)
    match kind_of(fields):
        case HopKind.RESERVE:
            return Reserve()
        case HopKind.CONNECT:
            return Connect(decode_peer(fields.blob(2)))
    raise RemoteProtocolError("a request to a relay is of an unknown kind")


def grant(voucher: Voucher, addresses: Iterable[bytes], limit: Limit | None, sign: Sign) -> bytes:
    """Write that a reservation is granted.

    Args:
        voucher: for whom, and until when.
        addresses: ours, multiaddrs as bytes, each ending in /p2p/ and our id; as many are told as there is room for.
        limit: of each circuit, None for none.
        sign: signs with our Ed25519 key.
    """
    told: list[tuple[int, bytes]] = []
    room = _ROOM
    for address in addresses:
        room -= len(address) + 4
        if room < 0 or len(told) == MAX_ADDRESSES:
            break
        told.append((2, address))
    reservation = encode_message([(1, voucher.expires_at), *told, (3, seal_voucher(voucher, sign))])
    status = (5, int(Status.OK))
    return encode_message([(1, int(HopKind.STATUS)), (3, reservation), (4, encode_limit(limit)), status])


def connected(limit: Limit | None) -> bytes:
    """Write that a circuit stands: the stream is the circuit from here on."""
    return encode_message([(1, int(HopKind.STATUS)), (4, encode_limit(limit)), (5, int(Status.OK))])


def refuse(status: Status) -> bytes:
    """Write why there is no reservation, or no circuit."""
    return encode_message([(1, int(HopKind.STATUS)), (5, int(status))])


def call(caller: str, limit: Limit | None) -> bytes:
    """Write on STOP that a peer (base58) wants a circuit to whom this is said to."""
    return encode_message([(1, int(StopKind.CONNECT)), (2, encode_peer(caller)), (3, encode_limit(limit))])


def check_accepted(message: bytes) -> None:
    """Read the answer to `call`.

    Raises:
        CircuitRefused: the destination doesn't want to.
        RemoteProtocolError: it answers nonsense.
    """
    fields = decode_message(message)
    if kind_of(fields) != StopKind.STATUS:
        raise RemoteProtocolError("an answer on STOP is none")
    check_status(fields.integer(4))
