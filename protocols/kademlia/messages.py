"""Messages between Kademlia nodes (libp2p specs, kad-dht, "RPC messages"). Addresses stay as bytes: see multiaddr."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message

K = 20  # peers that hold a record, and peers in an answer and in a bucket; the specification's
MAX_KEY = 80  # bytes; go-libp2p-kad-dht refuses longer ones for providers
MAX_PEER_ID = 64  # bytes; a secp256k1 key's has 39
MAX_PROVIDERS = 1024  # of one answer that are looked at; go-libp2p-kad-dht names all that it holds
MAX_ADDRESSES = (
    16  # of one peer that are looked at; a public Go node with all its transports has about as many
)
MAX_ADDRESS = 256  # bytes; one over a relay's WebTransport with two certhashes has about 200
MAX_REQUEST = 16 * 1024  # bytes; rust-libp2p sends and takes no longer messages, so our answers fit in, too
MAX_ANSWER = 512 * 1024  # bytes; MAX_PROVIDERS with a few addresses each
_REMEMBERED = 1024  # peers as they were encoded: all the nodes near a key name the same ones
_MAX_REMEMBERED = 1024  # bytes of each


class Type(IntEnum):
    """What a message is about."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


class Connection(IntEnum):
    """What the sender has to do with a peer that it names."""

    NOT_CONNECTED = 0
    CONNECTED = 1
    CAN_CONNECT = 2
    CANNOT_CONNECT = 3


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer and where it may be.

    peer_id: its id as bytes, a multihash. addresses: multiaddrs as bytes, without the peer id.
    """

    peer_id: bytes
    addresses: tuple[bytes, ...] = ()
    connection: Connection = Connection.NOT_CONNECTED


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer; the record of values is passed on unread."""

    type: Type
    key: bytes = b""
    closer: tuple[Contact, ...] = ()
    providers: tuple[Contact, ...] = ()
    record: bytes | None = None


def encode(message: Message) -> bytes:
    """Encode a message."""
    return encode_message(
        [
            (1, int(message.type)),
            (2, message.key or None),
            (3, message.record),
            *((8, _encode_contact(contact)) for contact in message.closer),
            *((9, _encode_contact(contact)) for contact in message.providers),
        ]
    )


def encode_within(message: Message, limit: int = MAX_REQUEST) -> bytes:
    """Encode a message with as many of its providers as fit into `limit` bytes, the first ones."""
    room = limit - len(encode(replace(message, providers=())))
    kept: list[Contact] = []
    for contact in message.providers:
        room -= len(encode_message([(9, _encode_contact(contact))]))
        if room < 0:
            break
        kept.append(contact)
    return encode(replace(message, providers=tuple(kept)))


def decode(data: bytes) -> Message:
    """Decode a message.

    Peers that can't be are left out, as are those beyond the twenty closer ones that the specification allows: one bad
    entry must not lose the rest.

    Raises:
        RemoteProtocolError: it is malformed, of an unknown type, or its key is too long.
    """
    fields = decode_message(data)
    try:
        kind = Type(fields.integer(1))
    except ValueError as error:
        raise RemoteProtocolError(f"no message has type {fields.integer(1)}") from error
    if len(key := fields.blob(2)) > MAX_KEY:
        raise RemoteProtocolError(f"a key has {len(key)} bytes, and may have {MAX_KEY}")
    return Message(
        kind,
        key,
        _decode_contacts(fields.blobs(8)[:K]),
        _decode_contacts(fields.blobs(9)[:MAX_PROVIDERS]),
        fields.blob(3) if 3 in fields else None,
    )


def _encode_contact(contact: Contact) -> bytes:
    return encode_message(
        [
            (1, contact.peer_id),
            *((2, address) for address in contact.addresses),
            (3, int(contact.connection) or None),
        ]
    )


def _decode_contacts(encoded: Iterable[bytes]) -> tuple[Contact, ...]:
    """Decode the peers that are well-formed, each once."""
    found: dict[bytes, Contact] = {}
    for data in encoded:
        try:
            contact = _known_contact(data) if len(data) <= _MAX_REMEMBERED else _decode_contact(data)
        except RemoteProtocolError:
            continue
        found.setdefault(contact.peer_id, contact)
    return tuple(found.values())


def _decode_contact(data: bytes) -> Contact:
    fields = decode_message(data)
    peer_id = fields.blob(1)
    if not 0 < len(peer_id) <= MAX_PEER_ID:
        raise RemoteProtocolError(f"a peer id has {len(peer_id)} bytes")
    addresses = tuple(address for address in fields.blobs(2) if 0 < len(address) <= MAX_ADDRESS)
    try:
        connection = Connection(fields.integer(3))
    except ValueError:
        connection = Connection.NOT_CONNECTED
    return Contact(peer_id, tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES], connection)


_known_contact = functools.lru_cache(_REMEMBERED)(_decode_contact)
