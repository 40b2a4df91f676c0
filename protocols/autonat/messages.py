"""The messages of AutoNAT v2 (libp2p specs, autonat-v2, "RPC Messages"), each as a value."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.protobuf import Fields, Fixed64, decode_message, encode_message

DIAL_REQUEST = "/libp2p/autonat/2/dial-request"
DIAL_BACK = "/libp2p/autonat/2/dial-back"
MAX_MESSAGE = 8192  # bytes, without the length; as in go-libp2p
MAX_DIAL_BACK = 1024  # bytes of a message on a stream of DIAL_BACK; the same
MAX_ADDRESSES = 50  # of a request that are looked at; the same
MAX_NONCE = (1 << 64) - 1
_NONCE_BYTES = 8


class Status(IntEnum):
    """DialResponse.ResponseStatus: whether the request was served."""

    INTERNAL_ERROR = 0
    REQUEST_REJECTED = 100
    DIAL_REFUSED = 101
    OK = 200


class DialStatus(IntEnum):
    """DialStatus: what came of the dial, where the request was served."""

    UNUSED = 0
    DIAL_ERROR = 100
    DIAL_BACK_ERROR = 101
    OK = 200


@dataclass(frozen=True, slots=True)
class DialRequest:
    """Dial the first of these that you would dial. addresses: binary multiaddrs. nonce: to be shown on the connection."""

    addresses: tuple[bytes, ...]
    nonce: int


@dataclass(frozen=True, slots=True)
class DialDataRequest:
    """Send so many bytes first. index: of the address that would be dialled."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class DialDataResponse:
    """Some of those bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class DialResponse:
    """What came of a request. index: of the address that was dialled."""

    status: Status
    index: int = 0
    dial_status: DialStatus = DialStatus.UNUSED


Message: TypeAlias = DialRequest | DialDataRequest | DialDataResponse | DialResponse


def encode(message: Message) -> bytes:
    """Write a message of a stream of DIAL_REQUEST, without its length."""
    match message:
        case DialRequest(addresses, nonce):
            known = [(1, address) for address in addresses]
            return encode_message([(1, encode_message([*known, (2, _nonce_bytes(nonce))]))])
        case DialResponse(status, index, dial_status):
            body = encode_message([(1, int(status)), (2, index), (3, int(dial_status))])
            return encode_message([(2, body)])
        case DialDataRequest(index, size):
            return encode_message([(3, encode_message([(1, index), (2, size)]))])
        case DialDataResponse(data):
            return encode_message([(4, encode_message([(1, data)]))])


def decode(data: bytes) -> Message:
    """Read a message of a stream of DIAL_REQUEST; raises RemoteProtocolError for anything that is none."""
    outer = decode_message(data)
    if len(outer) != 1:
        raise RemoteProtocolError("an AutoNAT message is of one kind")
    [number] = outer
    fields = decode_message(outer.blob(number))
    match number:
        case 1:
            return DialRequest(tuple(fields.blobs(1)[:MAX_ADDRESSES]), _nonce(fields, 2))
        case 2:
            return DialResponse(*_statuses(fields))
        case 3:
            return DialDataRequest(fields.integer(1), fields.integer(2))
        case 4:
            return DialDataResponse(fields.blob(1))
    raise RemoteProtocolError("an AutoNAT message is of an unknown kind")


def encode_dial_back(nonce: int) -> bytes:
    """Write a DialBack, without its length: the nonce of the request."""
    return encode_message([(1, _nonce_bytes(nonce))])


def decode_dial_back(data: bytes) -> int:
    """Read a DialBack: the nonce; raises RemoteProtocolError."""
    return _nonce(decode_message(data), 1)


def encode_dial_back_response() -> bytes:
    """Write a DialBackResponse, without its length: the nonce has come."""
    return encode_message([(1, 0)])


def _nonce_bytes(nonce: int) -> Fixed64:
    if not 0 <= nonce <= MAX_NONCE:
        raise LocalProtocolError("a nonce has 64 bits")
    return Fixed64(nonce.to_bytes(_NONCE_BYTES, "little"))


def _nonce(fields: Fields, number: int) -> int:
    data = fields.blob(number, bytes(_NONCE_BYTES))  # proto3 leaves out what is zero
    if len(data) != _NONCE_BYTES:
        raise RemoteProtocolError("a nonce has 64 bits")
    return int.from_bytes(data, "little")


def _statuses(fields: Fields) -> tuple[Status, int, DialStatus]:
    try:
        return Status(fields.integer(1)), fields.integer(2), DialStatus(fields.integer(3))
    except ValueError:
        raise RemoteProtocolError("an AutoNAT status is unknown") from None
