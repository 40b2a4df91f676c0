"""Multicast DNS messages, as far as libp2p peers use them (RFC 1035 section 4, RFC 6762 section 18)."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

Name = tuple[bytes, ...]  # the labels, in lower case: DNS ignores the case of ASCII letters

SERVICE: Name = (b"_p2p", b"_udp", b"local")  # libp2p specs, discovery/mdns, service-name
MAX_MESSAGE = 9000  # bytes; RFC 6762 section 17
MAX_NAME = 255  # bytes; RFC 1035 section 2.3.4
MAX_STRING = 255  # bytes; one length byte, RFC 1035 section 3.3
MAX_ENTRIES = 128  # questions and records in a message; rust-libp2p sends up to 30

_MAX_LABEL = 63  # bytes; two bits of the length byte tell a pointer from a label
_POINTER = 0xC0
_RESPONSE = 0x8000
_AUTHORITATIVE = 0x0400
_INTERNET = 1
_UNIQUE = 0x8000  # cache-flush: we are the only one to answer for the name (RFC 6762 section 10.2)


class Kind(IntEnum):
    """Types of records (RFC 1035 section 3.2.2, RFC 3596, RFC 2782)."""

    A = 1
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33


@dataclass(frozen=True, slots=True)
class Pointer:
    """A PTR record: name is one of the things called target. ttl: seconds; 0 withdraws it."""

    name: Name
    target: Name
    ttl: int


@dataclass(frozen=True, slots=True)
class Text:
    """A TXT record: the strings that describe name. ttl: seconds; 0 withdraws it."""

    name: Name
    strings: tuple[bytes, ...]
    ttl: int


@dataclass(frozen=True, slots=True)
class Message:
    """A query with its questions, or a response with its records; what libp2p doesn't use is left out."""

    is_response: bool
    questions: tuple[Name, ...]
    pointers: tuple[Pointer, ...]
    texts: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """What a response says of one peer. label: the peer's name on the network; ttl: seconds, 0 withdraws it."""

    label: bytes
    strings: tuple[bytes, ...]
    ips: tuple[IPv4Address | IPv6Address, ...]
    port: int
    ttl: int


def decode(data: bytes) -> Message:
    """Read a message; raises RemoteProtocolError for anything that is none or exceeds a limit."""
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"an mDNS message has at most {MAX_MESSAGE} bytes")
    reader = _Reader(data)
    _, flags, questions, answers, authorities, additionals = reader.unpack("!6H")
    if questions + answers + authorities + additionals > MAX_ENTRIES:
        raise RemoteProtocolError(f"we read at most {MAX_ENTRIES} entries of an mDNS message")
    asked = tuple(reader.question() for _ in range(questions))
    records = [reader.record() for _ in range(answers + authorities + additionals)]
    return Message(
        bool(flags & _RESPONSE),
        asked,
        tuple(record for record in records if isinstance(record, Pointer)),
        tuple(record for record in records if isinstance(record, Text)),
    )


def encode_query() -> bytes:
    """Write the question for all libp2p peers."""
    writer = _Writer(0, questions=1, answers=0, additionals=0)
    writer.name(SERVICE)
    writer.pack("!2H", Kind.PTR, _INTERNET)
    return bytes(writer.data)


def encode_response(instance: Instance) -> bytes:
    """Write all about one peer: PTR as the answer, SRV, TXT and its addresses beside it.

    rust-libp2p reads the TXT record; go-libp2p reads the last TXT record of a message, and only if SRV and an
    address stand in the same one. So a response is complete in itself and has one TXT record.
    Raises LocalProtocolError for a label or a string that is too long.
    """
    name, host = (instance.label, *SERVICE), (instance.label, b"local")
    writer = _Writer(_RESPONSE | _AUTHORITATIVE, questions=0, answers=1, additionals=2 + len(instance.ips))
    with writer.record(SERVICE, Kind.PTR, _INTERNET, instance.ttl):
        writer.name(name)
    with writer.record(name, Kind.SRV, _INTERNET | _UNIQUE, instance.ttl):
        writer.pack("!3H", 0, 0, instance.port)
        writer.name(host)
    with writer.record(name, Kind.TXT, _INTERNET | _UNIQUE, instance.ttl):
        for string in instance.strings:
            writer.string(string, MAX_STRING)
    for ip in instance.ips:
        kind = Kind.A if ip.version == 4 else Kind.AAAA
        with writer.record(host, kind, _INTERNET | _UNIQUE, instance.ttl):
            writer.data += ip.packed
    return bytes(writer.data)


class _Reader:
    """Reads a message from front to back; every step checks that the bytes are there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> tuple[int, ...]:
        try:
            values = struct.unpack_from(form, self._data, self._at)
        except struct.error:
            raise RemoteProtocolError("an mDNS message ends too early") from None
        self._at += struct.calcsize(form)
        return values

    def question(self) -> Name:
        name = self.name()
        self.unpack("!2H")
        return name

    def record(self) -> Pointer | Text | None:
        name = self.name()
        kind, _, ttl, length = self.unpack("!2HLH")
        end = self._at + length
        if end > len(self._data):
            raise RemoteProtocolError("an mDNS record is longer than its message")
        record: Pointer | Text | None = None
        if kind == Kind.PTR:
            record = Pointer(name, self.name(), ttl)
        elif kind == Kind.TXT:
            record = Text(name, self._strings(end), ttl)
        else:
            self._at = end
        if self._at != end:
            raise RemoteProtocolError("an mDNS record has another length than it says")
        return record

    def name(self) -> Name:
        """Read a name; pointers lead strictly backwards, so there is an end (RFC 1035 section 4.1.4)."""
        labels: list[bytes] = []
        size, at, limit, back = 1, self._at, self._at, 0
        while True:
            (length,) = self._peek(at, 1)
            if length == 0:
                break
            if length & _POINTER == _POINTER:
                high, low = self._peek(at, 2)
                back, at = back or at + 2, (high & ~_POINTER) << 8 | low
                if at >= limit:
                    raise RemoteProtocolError("a compressed mDNS name points forward")
                limit = at
                size += 2  # as if it were a label: chains of pointers cost time, and nobody needs them
            elif length > _MAX_LABEL:
                raise RemoteProtocolError("an mDNS name has a label of an unknown kind")
            else:
                labels.append(self._peek(at + 1, length).lower())
                at += 1 + length
                size += 1 + length
            if size > MAX_NAME:
                raise RemoteProtocolError(f"an mDNS name has at most {MAX_NAME} bytes")
        self._at = back or at + 1
        return tuple(labels)

    def _peek(self, at: int, size: int) -> bytes:
        piece = self._data[at : at + size]
        if len(piece) < size:
            raise RemoteProtocolError("an mDNS message ends too early")
        return piece

    def _strings(self, end: int) -> tuple[bytes, ...]:
        strings = []
        while self._at < end:
            (length,) = self._peek(self._at, 1)
            strings.append(self._peek(self._at + 1, length))
            self._at += 1 + length
        return tuple(strings)


class _Writer:
    """Writes a message from front to back; a name that stood before becomes a pointer to it."""

    def __init__(self, flags: int, *, questions: int, answers: int, additionals: int) -> None:
        self.data = bytearray()
        self._places: dict[Name, int] = {}
        self.pack("!6H", 0, flags, questions, answers, 0, additionals)

    def pack(self, form: str, *values: int) -> None:
        self.data += struct.pack(form, *values)

    def string(self, value: bytes, limit: int) -> None:
        if len(value) > limit:
            raise LocalProtocolError(f"{len(value)} bytes don't fit where mDNS has room for {limit}")
        self.data += bytes([len(value)]) + value

    def name(self, name: Name) -> None:
        for start in range(len(name)):
            place = self._places.get(name[start:])
            if place is not None:
                self.pack("!H", _POINTER << 8 | place)
                return
            self._places[name[start:]] = len(self.data)
            self.string(name[start], _MAX_LABEL)
        self.data.append(0)

    @contextmanager
    def record(self, name: Name, kind: Kind, internet_class: int, ttl: int) -> Iterator[None]:
        self.name(name)
        self.pack("!2HLH", kind, internet_class, ttl, 0)
        start = len(self.data)
        yield
        struct.pack_into("!H", self.data, start - 2, len(self.data) - start)
