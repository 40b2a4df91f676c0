"""`/libp2p/dcutr`, sans I/O: over a relayed connection two peers agree when both dial each other (libp2p specs, relay/DCUtR).

The initiator is the peer to which the circuit came, the responder the one that asked the relay for it:

    initiator   CONNECT { where it may be }    the round trip is measured from here
    responder   CONNECT { where it may be }    to here
    initiator   SYNC                           and it dials half a round trip later
    responder                                  dials as soon as SYNC comes

Both dials then leave at the same moment, and each opens its own NAT for the other's. On the connection that comes of it the
responder is the client of every handshake, and the initiator the server. What they tell is one attempt: the next
one takes another stream, so that a round trip that was measured wrongly spoils no other attempt.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.varint import Buffer

PROTOCOL = "/libp2p/dcutr"
MAX_MESSAGE = 4096  # bytes, without the length; libp2p specs, relay/DCUtR, "RPC messages"
MAX_ADDRESSES = 32  # of a message that count; as many as of a peer are dialled elsewhere


class Kind(IntEnum):
    """HolePunch.Type."""

    CONNECT = 100
    SYNC = 300


@dataclass(frozen=True, slots=True)
class HolePunch:
    """The one message. addresses: where its sender may be, as binary multiaddrs; SYNC has none."""

    kind: Kind
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Synchronised:
    """Both ends know when to dial.

    Attributes:
        addresses: where the peer may be, as binary multiaddrs that nobody has checked.
        round_trip: seconds over the relay, as this end measured it.
        at: when to dial, on the clock that was given.
    """

    addresses: tuple[bytes, ...]
    round_trip: float
    at: float


def encode(message: HolePunch) -> bytes:
    """Write a message, without its length; raises LocalProtocolError if it is longer than peers take."""
    data = encode_message([(1, int(message.kind)), *((2, address) for address in message.addresses)])
    if len(data) > MAX_MESSAGE:
        raise LocalProtocolError(f"{len(message.addresses)} addresses take {len(data)} bytes")
    return data


def decode(data: bytes) -> HolePunch:
    """Read a message; raises RemoteProtocolError for anything that is none. Addresses beyond MAX_ADDRESSES are left out."""
    fields = decode_message(data)
    try:
        kind = Kind(fields.integer(1))
    except ValueError:
        raise RemoteProtocolError(
            f"a hole punch message is of the unknown kind {fields.integer(1)}"
        ) from None
    return HolePunch(kind, tuple(fields.blobs(2)[:MAX_ADDRESSES]))


class _End:
    """One end of an exchange.

    Args:
        addresses: where we may be, as binary multiaddrs, the likeliest first; those that don't fit are left out.
    """

    is_client: bool
    """Whether this end is the client of the handshakes on the punched connection."""

    def __init__(self, addresses: Iterable[bytes]) -> None:
        self._connect = encode_delimited(encode(HolePunch(Kind.CONNECT, _fitting(addresses))))
        self._messages = Delimited(MAX_MESSAGE)
        self._outgoing = bytearray()
        self._theirs: tuple[bytes, ...] = ()
        self._sent_at: float | None = None

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive(self, data: Buffer, now: float) -> list[Synchronised]:
        """Take bytes of the stream; look at `outgoing` afterwards.

        Args:
            now: a clock that never goes back, seconds.

        Raises:
            RemoteProtocolError: that is not what the peer should say now.
        """
        return [
            event for message in self._messages.receive(data) for event in self._take(decode(message), now)
        ]

    def _take(self, message: HolePunch, now: float) -> list[Synchronised]:
        raise NotImplementedError

    def _keep(self, message: HolePunch) -> None:
        """Remember the addresses of the peer's CONNECT."""
        if message.kind is not Kind.CONNECT or self._theirs:
            raise RemoteProtocolError(f"{message.kind.name} came when it should not")
        if not message.addresses:
            raise RemoteProtocolError("the peer does not know where it is")
        self._theirs = message.addresses


class Initiator(_End):
    """The end to which the circuit came, and which opens the stream: `start`, then `receive` until both are synchronised."""

    is_client = False

    def start(self, now: float) -> None:
        """Send CONNECT, and begin to measure the round trip."""
        if self._sent_at is not None:
            raise LocalProtocolError("an attempt starts once")
        self._outgoing += self._connect
        self._sent_at = now

    def _take(self, message: HolePunch, now: float) -> list[Synchronised]:
        if self._sent_at is None:
            raise RemoteProtocolError("the peer answered before it was asked")
        self._keep(message)
        self._outgoing += encode_delimited(encode(HolePunch(Kind.SYNC)))
        round_trip = now - self._sent_at
        return [Synchronised(self._theirs, round_trip, now + round_trip / 2)]


class Responder(_End):
    """The end that asked for the circuit: answers CONNECT, and dials when SYNC comes."""

    is_client = True
    _is_synchronised = False

    def _take(self, message: HolePunch, now: float) -> list[Synchronised]:
        if self._sent_at is None:
            self._keep(message)
            self._outgoing += self._connect
            self._sent_at = now
            return []
        if message.kind is not Kind.SYNC or self._is_synchronised:
            raise RemoteProtocolError(f"{message.kind.name} came when it should not")
        self._is_synchronised = True
        return [Synchronised(self._theirs, now - self._sent_at, now)]


def _fitting(addresses: Iterable[bytes]) -> tuple[bytes, ...]:
    """Give the first addresses that a CONNECT has room for."""
    fitting: list[bytes] = []
    room = MAX_MESSAGE - len(encode(HolePunch(Kind.CONNECT)))
    for address in addresses:
        size = len(encode_message([(2, address)]))
        if size <= room and len(fitting) < MAX_ADDRESSES:
            fitting.append(address)
            room -= size
    return tuple(fitting)
