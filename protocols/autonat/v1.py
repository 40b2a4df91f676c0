"""AutoNAT v1 (libp2p specs, autonat-v1): a peer dials all our addresses, and tells whether one of them led to us."""

from dataclasses import dataclass
from enum import IntEnum

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message

PROTOCOL = "/libp2p/autonat/1.0.0"
MAX_MESSAGE = 4096  # bytes, without the length; as in go-libp2p
MAX_ADDRESSES = 16  # of a request that are looked at; the same


class Kind(IntEnum):
    """Message.MessageType."""

    DIAL = 0
    DIAL_RESPONSE = 1


class Status(IntEnum):
    """Message.ResponseStatus."""

    OK = 0
    DIAL_ERROR = 100
    DIAL_REFUSED = 101
    BAD_REQUEST = 200
    INTERNAL_ERROR = 300


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial me. peer_id: the binary id of who asks. addresses: binary multiaddrs."""

    peer_id: bytes
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DialResponse:
    """What came of it. address: the binary multiaddr that led to the asker, if one did and it is told."""

    status: Status
    address: bytes = b""


def encode(message: Dial | DialResponse) -> bytes:
    """Write a message, without its length."""
    match message:
        case Dial(peer_id, addresses):
            peer = encode_message([(1, peer_id), *((2, address) for address in addresses)])
            return encode_message([(1, int(Kind.DIAL)), (2, encode_message([(1, peer)]))])
        case DialResponse(status, address):
            body = encode_message([(1, int(status)), (3, address or None)])
            return encode_message([(1, int(Kind.DIAL_RESPONSE)), (3, body)])


def decode(data: bytes) -> Dial | DialResponse:
    """Read a message; raises RemoteProtocolError for anything that is none."""
    outer = decode_message(data)
    match outer.integer(1):
        case Kind.DIAL if 2 in outer:
            peer = decode_message(decode_message(outer.blob(2)).blob(1))
            return Dial(peer.blob(1), tuple(peer.blobs(2)[:MAX_ADDRESSES]))
        case Kind.DIAL_RESPONSE if 3 in outer:
            fields = decode_message(outer.blob(3))
            try:
                status = Status(fields.integer(1))
            except ValueError:
                raise RemoteProtocolError(f"status {fields.integer(1)} is unknown") from None
            return DialResponse(status, fields.blob(3))
    raise RemoteProtocolError("an AutoNAT message is of an unknown kind, or empty")
