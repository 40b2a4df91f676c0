"""multistream-select 1.0: how the two ends of a stream agree on its protocol.

A message is a varint length and a line that ends in a newline. The initiator of a tunnel does not wait: its header,
its protocol and its first data leave together, and the answer is checked when it comes (libp2p connections spec,
"multistream-select"; go-libp2p calls it lazy negotiation).
"""

import functools
from collections.abc import Callable

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
LIST = "ls"
MAX_LINE = 1024  # bytes; go-multistream refuses longer ones too
MAX_PROPOSALS = 64  # protocols that a peer may try on one stream
_LONG = 0x80  # the bit of a length that takes two bytes


def encode_line(line: str) -> bytes:
    """Return a message: the varint length of the line with its newline, and both.

    Raises:
        LocalProtocolError: the line is longer than peers take.
    """
    data = line.encode() + b"\n"
    if len(data) > MAX_LINE:
        raise LocalProtocolError(
            f"a protocol name of {len(data) - 1} bytes is too long for multistream-select"
        )
    if len(data) < _LONG:
        return bytes((len(data),)) + data
    return bytes((len(data) & 0x7F | _LONG, len(data) >> 7)) + data


GREETING = encode_line(HEADER)


class _Lines:
    """Cuts incoming bytes into lines."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next(self) -> str | None:
        """Return the next line, or None until all of it has come."""
        buffer = self._buffer
        if not buffer:
            return None
        length, start = buffer[0], 1
        if length & _LONG:
            if len(buffer) < 2:
                return None
            length, start = length & 0x7F | buffer[1] << 7, 2
        if not 0 < length <= MAX_LINE:
            raise RemoteProtocolError(f"a multistream line claims {length} bytes")
        if len(buffer) < start + length:
            return None
        line = bytes(buffer[start : start + length])
        del buffer[: start + length]
        if not line.endswith(b"\n"):
            raise RemoteProtocolError("a multistream line has no newline")
        try:
            return line[:-1].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a multistream line is not text") from None

    def rest(self) -> bytes:
        """Return what came behind the lines taken so far."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


@functools.cache
def _hello(protocol: str) -> bytes:
    return encode_line(HEADER) + encode_line(protocol)


class Initiator:
    """The end that opened the stream and wants one protocol.

    Attributes:
        protocol: the one that it wants now.
        agreed: True once the peer has taken the protocol, False once it has refused, None before.
    """

    def __init__(self, protocol: str) -> None:
        self.agreed: bool | None = None
        self.protocol = protocol
        self._expected = [HEADER, protocol]
        self._lines: _Lines | None = None

    def hello(self) -> bytes:
        """Return what to send first; data may follow at once."""
        return _hello(self.protocol)

    def propose(self, protocol: str) -> bytes:
        """Return what to send to try another protocol, once the peer has refused the last one."""
        self.protocol, self._expected, self.agreed = protocol, [protocol], None
        return encode_line(protocol)

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the answer; return what came behind it, once `agreed` is True.

        Raises:
            RemoteProtocolError: the peer does not speak multistream-select.
        """
        if self.agreed:
            return bytes(data)
        if self._lines is None:
            hello = _hello(self.protocol)
            if bytes(data[: len(hello)]) == hello:  # whoever agrees says the same, and mostly in one piece
                self.agreed = True
                return bytes(data[len(hello) :])
            self._lines = _Lines()
        self._lines.feed(data)
        while self.agreed is None:
            line = self._lines.next()
            if line is None:
                return b""
            if line == self._expected[0]:
                self._expected.pop(0)
                if not self._expected:
                    self.agreed = True
            elif line == NOT_AVAILABLE and self._expected == [self.protocol]:
                self.agreed = False
            else:
                raise RemoteProtocolError("the peer answered with another protocol than the proposed one")
        return self._lines.rest() if self.agreed else b""


class Responder:
    """The end that accepted the stream and offers what it speaks.

    Args:
        speaks: tells whether a protocol is offered now.
        offered: lists the protocols on request ("ls").

    Attributes:
        protocol: what was agreed on, None before.
    """

    def __init__(self, speaks: Callable[[str], bool], offered: Callable[[], list[str]]) -> None:
        self.protocol: str | None = None
        self._speaks = speaks
        self._offered = offered
        self._lines: _Lines | None = None
        self._greeted = False
        self._proposals = 0

    @property
    def has_heard(self) -> bool:
        """Whether the initiator has said anything yet."""
        return self._lines is not None or self.protocol is not None

    def receive(self, data: bytes | memoryview) -> tuple[bytes, bytes]:
        """Take bytes from the initiator.

        Returns:
            What to answer, and what came behind the negotiation once `protocol` is set.

        Raises:
            RemoteProtocolError: the peer does not speak multistream-select, or tries too much.
        """
        if self.protocol is not None:
            return b"", bytes(data)
        if self._lines is None:
            data = bytes(data)
            if agreed := self._agree_at_once(data):
                return agreed, data[len(agreed) :]
            self._lines = _Lines()
        self._lines.feed(data)
        answer = b""
        while self.protocol is None:
            line = self._lines.next()
            if line is None:
                return answer, b""
            answer += self._answer(line)
        return answer, self._lines.rest()

    def _agree_at_once(self, data: bytes) -> bytes:
        """Take what mostly comes first, the header and a protocol that we speak; return both, which is the answer, or b""."""
        start = len(GREETING) + 1
        if not data.startswith(GREETING) or len(data) < start or data[start - 1] & _LONG:
            return b""
        end = start + data[start - 1]
        line = data[start : end - 1].decode(errors="replace")
        if data[end - 1 : end] != b"\n" or not self._speaks(line):
            return b""
        self.protocol = line
        return data[:end]

    def _answer(self, line: str) -> bytes:
        if not self._greeted:
            if line != HEADER:
                raise RemoteProtocolError("the peer does not speak multistream-select 1.0")
            self._greeted = True
            return encode_line(HEADER)
        self._proposals += 1
        if self._proposals > MAX_PROPOSALS:
            raise RemoteProtocolError("the peer tries too many protocols on one stream")
        if line == LIST:
            return _encode_list(self._offered())
        if not self._speaks(line):
            return encode_line(NOT_AVAILABLE)
        self.protocol = line
        return encode_line(line)


def _encode_list(protocols: list[str]) -> bytes:
    """Return the answer to "ls": one message that holds a message for every protocol, and a newline."""
    body = b"".join(encode_line(protocol) for protocol in protocols) + b"\n"
    size, prefix = len(body), bytearray()
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + body
