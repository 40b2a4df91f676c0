"""The messages of HOP and STOP as all three parties write them (libp2p specs, relay/circuit-v2).

Each is one protobuf behind its length (`protocols.delimited`), and what follows it on the stream belongs to the circuit.
"""

from dataclasses import dataclass
from enum import IntEnum

from peertunnel.protocols.errors import ProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, multihash_of, peer_id_of
from peertunnel.protocols.protobuf import Fields, decode_message, encode_message

HOP = "/libp2p/circuit/relay/0.2.0/hop"  # spoken to a relay: reserve, and connect
STOP = "/libp2p/circuit/relay/0.2.0/stop"  # spoken by a relay to the destination of a circuit
MAX_MESSAGE = 4096  # bytes; go-libp2p's limit for either protocol
_MAX_SECONDS = 2**32 - 1  # the field is a uint32
_MAX_BYTES = 2**63 - 1  # the field is a uint64, of which we write 63 bits


class HopKind(IntEnum):
    """HopMessage.Type."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopKind(IntEnum):
    """StopMessage.Type."""

    CONNECT = 0
    STATUS = 1


class Status(IntEnum):
    """What a relay, or a destination, answers."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class CircuitRefused(ProtocolError):
    """A relay, or the destination, has said no, as it may. status: why."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name.replace("_", " ").lower())
        self.status = status


@dataclass(frozen=True, slots=True)
class Limit:
    """What one circuit may take. seconds: from its start. bytes: each way. 0 is no limit."""

    seconds: int
    bytes: int


def encode_peer(peer_id: str) -> bytes:
    """Write a Peer; its addresses are for active relays, which nobody runs."""
    return encode_message([(1, multihash_of(peer_id))])


def decode_peer(data: bytes) -> str:
    """Read the id of a Peer, in base58; raises RemoteProtocolError."""
    try:
        return peer_id_of(decode_message(data).blob(1))
    except PeerIdError as error:
        raise RemoteProtocolError(str(error)) from None


def encode_limit(limit: Limit | None) -> bytes | None:
    """Write a Limit; none is written by leaving the message out."""
    return None if limit is None else encode_message([(1, limit.seconds or None), (2, limit.bytes or None)])


def decode_limit(fields: Fields, number: int) -> Limit | None:
    """Read a Limit in a field, None where nothing is limited; raises RemoteProtocolError."""
    inner = decode_message(fields.blob(number))
    limit = Limit(min(inner.integer(1), _MAX_SECONDS), min(inner.integer(2), _MAX_BYTES))
    return limit if limit.seconds or limit.bytes else None


def kind_of(fields: Fields) -> int:
    """Return a message's type, which must not be left out; raises RemoteProtocolError."""
    if 1 not in fields:
        raise RemoteProtocolError("a circuit message has no type")
    return fields.integer(1)


def check_status(number: int) -> None:
    """Take the status of an answer.

    Raises:
        CircuitRefused: it is not OK.
        RemoteProtocolError: it is unknown.
    """
    try:
        status = Status(number)
    except ValueError:
        raise RemoteProtocolError(f"status {number} is unknown") from None
    if status is not Status.OK:
        raise CircuitRefused(status)
