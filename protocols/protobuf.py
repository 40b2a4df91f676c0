"""Protocol Buffers' wire format, as far as libp2p's messages need it: varints and length-delimited fields.

Source: protobuf.dev, "Encoding". Messages of our own and of the libp2p specs are read and written field by field, so
nothing has to be generated, and every count is bounded by the size of the message.
"""

from collections.abc import Iterable
from typing import TypeAlias

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.varint import Buffer, encode_varint

Value: TypeAlias = int | bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 (groups) are no longer written
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}
_UINT64_BYTES = 10  # a negative int32 or enum takes all ten


class Fixed64(bytes):
    """Eight bytes, the lowest first, that are written as a field of fixed size; they are read as any other bytes."""


class Fields(dict[int, list[Value]]):
    """A decoded message: field numbers with their values in order, of which the last one counts for a single field."""

    def integer(self, number: int, default: int = 0) -> int:
        """Return a single integer; raises RemoteProtocolError if bytes stand there."""
        value = self.get(number, [default])[-1]
        if not isinstance(value, int):
            raise RemoteProtocolError(f"field {number} is no integer")
        return value

    def blob(self, number: int, default: bytes = b"") -> bytes:
        """Return a single string or message; raises RemoteProtocolError if a number stands there."""
        return self.blobs(number)[-1] if number in self else default

    def blobs(self, number: int) -> list[bytes]:
        """Return repeated strings or messages; raises RemoteProtocolError if a number stands among them."""
        values = self.get(number, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) != len(values):
            raise RemoteProtocolError(f"field {number} is no string")
        return found


def encode_message(fields: Iterable[tuple[int, Value | None]]) -> bytes:
    """Encode fields in the order given, each a number with an unsigned integer or bytes; None is left out."""
    encoded = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            encoded += encode_varint(number << 3 | _VARINT) + encode_varint(value)
        elif isinstance(value, Fixed64):
            encoded += encode_varint(number << 3 | _FIXED64) + value
        elif value is not None:
            encoded += encode_varint(number << 3 | _BYTES) + encode_varint(len(value)) + value
    return bytes(encoded)


def decode_message(data: Buffer) -> Fields:
    """Decode a message; raises RemoteProtocolError when it is cut short or malformed."""
    fields, offset, data = Fields(), 0, bytes(data)
    while offset < len(data):
        key, offset = _varint(data, offset)
        number, kind = key >> 3, key & 7
        value: Value
        if number == 0:
            raise RemoteProtocolError("a field has number 0")
        if kind == _VARINT:
            value, offset = _varint(data, offset)
        else:
            if kind == _BYTES:
                size, offset = _varint(data, offset)
            elif kind in _FIXED_SIZE:
                size = _FIXED_SIZE[kind]
            else:
                raise RemoteProtocolError(f"wire type {kind} is not in use")
            if offset + size > len(data):
                raise RemoteProtocolError("a message is cut short")
            value, offset = data[offset : offset + size], offset + size
        fields.setdefault(number, []).append(value)
    return fields


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode up to 64 bits; protobuf's varints, unlike multiformats', may be longer than they need be."""
    value = 0
    for count in range(_UINT64_BYTES):
        if offset + count >= len(data):
            raise RemoteProtocolError("a message is cut short")
        byte = data[offset + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & (1 << 64) - 1, offset + count + 1
    raise RemoteProtocolError("a varint has more than ten bytes")
