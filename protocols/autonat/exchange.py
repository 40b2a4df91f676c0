"""One request of AutoNAT v2 and its answer, at either end (libp2p specs, autonat-v2, "AutoNAT V2 Protocol").

client   DialRequest { addresses, nonce }
server   DialDataRequest { size }             only where the address has another IP than the client: so that nobody
client   DialDataResponse, size bytes of it   has others dialled at no cost of its own
server   dials one address, shows the nonce on a stream of DIAL_BACK
server   DialResponse { which address, what came of it }
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from peertunnel.protocols.autonat.messages import (
    MAX_MESSAGE,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    DialStatus,
    Message,
    Status,
    decode,
    encode,
)
from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.varint import Buffer

MIN_DIAL_DATA = 30_000  # bytes; libp2p specs, autonat-v2, "Amplification Attack Prevention"
MAX_DIAL_DATA = 100_000  # bytes; the same
CHUNK = 4000  # bytes of dial data in a message; 4,096 are allowed, and go-libp2p sends so many
MIN_CHUNK = 100  # bytes that each message but the last one brings at least; as in go-libp2p


@dataclass(frozen=True, slots=True)
class DialRequested:
    """A client wants to be dialled. addresses: binary multiaddrs that nobody has checked, the most wanted first."""

    addresses: tuple[bytes, ...]
    nonce: int


@dataclass(frozen=True, slots=True)
class DialDataReceived:
    """The client has sent as many bytes as it was asked for."""


ServerEvent: TypeAlias = DialRequested | DialDataReceived


class _State(Enum):
    START = auto()
    ASKED = auto()
    SENDING = auto()
    DONE = auto()


class _End:
    def __init__(self) -> None:
        self._messages = Delimited(MAX_MESSAGE)
        self._outgoing = bytearray()
        self._state = _State.START

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def _send(self, message: Message) -> None:
        self._outgoing += encode_delimited(encode(message))

    def _advance(self, allowed: tuple[_State, ...], to: _State) -> None:
        if self._state not in allowed:
            raise LocalProtocolError(f"that makes no sense when a request is {self._state.name.lower()}")
        self._state = to


class Client(_End):
    """The end that wants to know: `ask`, then `receive` until there is an answer.

    Args:
        addresses: binary multiaddrs, the most wanted first; at most MAX_ADDRESSES are looked at.
        nonce: 64 random bits.
    """

    def __init__(self, addresses: Sequence[bytes], nonce: int) -> None:
        super().__init__()
        self._request = DialRequest(tuple(addresses), nonce)

    def ask(self) -> None:
        """Send the request."""
        self._advance((_State.START,), _State.ASKED)
        self._send(self._request)

    def receive(self, data: Buffer) -> list[DialResponse]:
        """Take bytes of the stream; look at `outgoing` afterwards, which may be dial data.

        Raises:
            RemoteProtocolError: that is not what a server should say now.
        """
        answers: list[DialResponse] = []
        for message in map(decode, self._messages.receive(data)):
            if self._state not in (_State.ASKED, _State.SENDING):
                raise RemoteProtocolError("the server spoke when it should not")
            match message:
                case DialDataRequest(index, size) if self._state is _State.ASKED:
                    self._check(index)
                    if size > MAX_DIAL_DATA:
                        raise RemoteProtocolError(
                            f"the server wants {size} bytes, and may want {MAX_DIAL_DATA}"
                        )
                    self._state = _State.SENDING
                    self._send_dial_data(size)
                case DialResponse(status, index, dial_status):
                    if status is Status.OK:
                        self._check(index)
                        if dial_status is DialStatus.UNUSED:
                            raise RemoteProtocolError("the server does not tell what came of its dial")
                    self._state = _State.DONE
                    answers.append(message)
                case _:
                    raise RemoteProtocolError("a server does not say that, or not now")
        return answers

    def _check(self, index: int) -> None:
        if index >= len(self._request.addresses):
            raise RemoteProtocolError(f"the server speaks of address {index}, and there is none")

    def _send_dial_data(self, size: int) -> None:
        for start in range(0, size, CHUNK):
            self._send(DialDataResponse(bytes(min(CHUNK, size - start))))


class Server(_End):
    """The end that dials: `receive` tells of the request, then `ask_for_data` if need be, and `respond` once."""

    _missing = 0
    _count = 0

    def receive(self, data: Buffer) -> list[ServerEvent]:
        """Take bytes of the stream.

        Raises:
            RemoteProtocolError: that is not what a client should say now.
        """
        events: list[ServerEvent] = []
        for message in map(decode, self._messages.receive(data)):
            match message:
                case DialRequest(addresses, nonce) if self._state is _State.START:
                    self._state, self._count = _State.ASKED, len(addresses)
                    events.append(DialRequested(addresses, nonce))
                case DialDataResponse(chunk) if self._state is _State.SENDING and self._missing > 0:
                    self._missing -= len(chunk)
                    if self._missing <= 0:
                        events.append(DialDataReceived())
                    elif len(chunk) < MIN_CHUNK:
                        raise RemoteProtocolError("dial data comes in too small pieces")
                case _:
                    raise RemoteProtocolError("a client does not say that, or not now")
        return events

    def ask_for_data(self, index: int, size: int) -> None:
        """Have the client send so many bytes before the address of that index is dialled."""
        if not 0 <= index < self._count or not MIN_DIAL_DATA <= size <= MAX_DIAL_DATA:
            raise LocalProtocolError(f"{size} bytes for address {index} can't be asked for")
        self._advance((_State.ASKED,), _State.SENDING)
        self._missing = size
        self._send(DialDataRequest(index, size))

    def respond(self, response: DialResponse) -> None:
        """Send the answer, the last word on the stream; a refusal may come before the request has been read."""
        self._advance((_State.START, _State.ASKED, _State.SENDING), _State.DONE)
        self._send(response)
