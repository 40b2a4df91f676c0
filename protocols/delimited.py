"""Messages one behind the other on a stream, each behind its length as a varint, as most libp2p protocols send them."""

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.varint import Buffer, decode_varint, encode_varint


def encode_delimited(message: bytes) -> bytes:
    """Put a message's length in front of it."""
    return encode_varint(len(message)) + message


def missing(begun: Buffer, limit: int) -> int:
    """Return how many bytes the first message is certainly still short of, 0 once it is complete.

    Whoever reads no more than that leaves what follows the message on the stream.

    Args:
        begun: what has come of it, its length included.
        limit: bytes that the message may have.

    Raises:
        RemoteProtocolError: it is beyond the limit.
    """
    prefix = decode_varint(begun)
    if prefix is None:
        return 1
    size, start = prefix
    if size > limit:
        raise RemoteProtocolError(f"a message has {size} bytes, and may have {limit}")
    return max(0, start + size - len(begun))


class Delimited:
    """Takes a stream apart into messages.

    Args:
        limit: bytes that a message may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no message has been begun."""
        return not self._pending

    def receive(self, data: Buffer) -> list[bytes]:
        """Return the messages that are complete now; raises RemoteProtocolError for one beyond the limit."""
        self._pending += data
        messages: list[bytes] = []
        offset = 0
        while (prefix := decode_varint(self._pending, offset)) is not None:
            size, start = prefix
            if size > self._limit:
                raise RemoteProtocolError(f"a message has {size} bytes, and may have {self._limit}")
            if start + size > len(self._pending):
                break
            messages.append(bytes(self._pending[start : start + size]))
            offset = start + size
        del self._pending[:offset]
        return messages
