"""The messages of /rendezvous/1.0.0 (libp2p specs, rendezvous), each as a value."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import Fields, decode_message, encode_message

DEFAULT_TTL = 2 * 3600  # seconds; libp2p specs, rendezvous, "Registration Lifetime"
MAX_TTL = 72 * 3600  # seconds; the same
MAX_NAMESPACE = 255  # bytes; the same, "Recommendations"
MAX_COOKIE = 1024  # bytes; rust-libp2p's have 8 and the namespace
_MAX_REASON = 200  # characters of a refusal that are worth keeping


class Kind(IntEnum):
    """Message.MessageType."""

    REGISTER = 0
    REGISTER_RESPONSE = 1
    UNREGISTER = 2
    DISCOVER = 3
    DISCOVER_RESPONSE = 4


class Status(IntEnum):
    """Message.ResponseStatus."""

    OK = 0
    INVALID_NAMESPACE = 100
    INVALID_SIGNED_PEER_RECORD = 101
    INVALID_TTL = 102
    INVALID_COOKIE = 103
    NOT_AUTHORIZED = 200
    INTERNAL_ERROR = 300
    UNAVAILABLE = 400


@dataclass(frozen=True, slots=True)
class Register:
    """A peer is in a namespace. envelope: its signed record. ttl: seconds that this holds, None for the default."""

    namespace: str
    envelope: bytes
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """The answer to Register. ttl: seconds that the registration lasts. reason: for people."""

    status: Status
    ttl: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unregister:
    """A peer leaves a namespace; there is no answer."""

    namespace: str


@dataclass(frozen=True, slots=True)
class Discover:
    """Who is in a namespace, None for any? limit: registrations wanted, 0 for any number.

    cookie: from the last answer, so that only what is new since then comes.
    """

    namespace: str | None
    limit: int = 0
    cookie: bytes = b""


@dataclass(frozen=True, slots=True)
class Discovered:
    """The answer to Discover. cookie: for the next question. reason: for people."""

    status: Status
    registrations: tuple[Register, ...] = ()
    cookie: bytes = b""
    reason: str = ""


Message: TypeAlias = Register | Registered | Unregister | Discover | Discovered


def encode(message: Message) -> bytes:
    """Write a message, without its length."""
    match message:
        case Register():
            kind, number, body = Kind.REGISTER, 2, _register(message)
        case Registered(status, ttl, reason):
            granted = ttl if status is Status.OK else None
            body = encode_message([(1, status), (2, reason.encode() or None), (3, granted)])
            kind, number = Kind.REGISTER_RESPONSE, 3
        case Unregister(namespace):
            kind, number, body = Kind.UNREGISTER, 4, encode_message([(1, namespace.encode())])
        case Discover(wanted, limit, cookie):
            name = None if wanted is None else wanted.encode()
            body = encode_message([(1, name), (2, limit or None), (3, cookie or None)])
            kind, number = Kind.DISCOVER, 5
        case Discovered(status, registrations, cookie, reason):
            found = [(1, _register(registration)) for registration in registrations]
            body = encode_message(
                [*found, (2, cookie or None), (3, int(status)), (4, reason.encode() or None)]
            )
            kind, number = Kind.DISCOVER_RESPONSE, 6
    return encode_message([(1, int(kind)), (number, body)])


def decode(data: bytes) -> Message:
    """Read a message; raises RemoteProtocolError for anything that is none.

    Lengths of namespaces and cookies are not judged here: who asks wants to be told about them.
    """
    outer = decode_message(data)
    match outer.integer(1):
        case Kind.REGISTER:
            return _registration(_body(outer, 2))
        case Kind.REGISTER_RESPONSE:
            fields = _body(outer, 3)
            return Registered(_status(fields.integer(1)), fields.integer(3), _reason(fields.blob(2)))
        case Kind.UNREGISTER:
            return Unregister(_text(_body(outer, 4).blob(1)))
        case Kind.DISCOVER:
            fields = _body(outer, 5)
            # An empty name is how some write that there is none.
            return Discover(_text(fields.blob(1)) or None, fields.integer(2), fields.blob(3))
        case Kind.DISCOVER_RESPONSE:
            fields = _body(outer, 6)
            found = tuple(_registration(decode_message(item)) for item in fields.blobs(1))
            status = _status(fields.integer(3))
            return Discovered(status, found, fields.blob(2), _reason(fields.blob(4)))
    raise RemoteProtocolError("a rendezvous message is of an unknown kind")


def _register(message: Register) -> bytes:
    return encode_message([(1, message.namespace.encode()), (2, message.envelope), (3, message.ttl)])


def _registration(fields: Fields) -> Register:
    return Register(_text(fields.blob(1)), fields.blob(2), fields.integer(3) if 3 in fields else None)


def _body(outer: Fields, number: int) -> Fields:
    if number not in outer:
        raise RemoteProtocolError("a rendezvous message is empty")
    return decode_message(outer.blob(number))


def _status(number: int) -> Status:
    try:
        return Status(number)
    except ValueError:
        raise RemoteProtocolError(f"status {number} is unknown") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a namespace is text in UTF-8") from None


def _reason(data: bytes) -> str:
    return data.decode("utf-8", "replace")[:_MAX_REASON]
