"""Unsigned varints (multiformats/unsigned-varint): seven bits a byte, the lowest first."""

from typing import TypeAlias

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

MAX_BYTES = 9  # multiformats/unsigned-varint, "Practical maximum": 63 bits

Buffer: TypeAlias = bytes | bytearray | memoryview


def encode_varint(value: int) -> bytes:
    """Encode a number from 0 to 2**63 - 1; raises LocalProtocolError for any other."""
    if not 0 <= value < 1 << 7 * MAX_BYTES:
        raise LocalProtocolError(f"{value} does not fit into a varint")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(data: Buffer, offset: int = 0) -> tuple[int, int] | None:
    """Decode the number at offset (bytes): the number and the offset behind it, None while bytes are missing.

    Raises RemoteProtocolError if it is longer than nine bytes or than it need be.
    """
    value = 0
    for count, byte in enumerate(data[offset : offset + MAX_BYTES]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if byte == 0 and count > 0:
                raise RemoteProtocolError("a varint is longer than it need be")
            return value, offset + count + 1
    if len(data) - offset >= MAX_BYTES:
        raise RemoteProtocolError(f"a varint is longer than {MAX_BYTES} bytes")
    return None
