"""`/peertunnel/punch/1.0.0`, sans I/O: two peers, one of which has a NAT that maps anew for each destination, meet by chance.

Where it is doesn't tell the other end at which port to call it, so DCUtR fails. With many sockets it has many ports,
and the other end, whose NAT keeps one port for all, probes until it hits one:

    initiator   PROPOSE { its NAT's mapping, where others see it }    on a circuit, when DCUtR seems to fail
    responder   PROPOSE { its NAT's mapping, where others see it }
    opener      OPENED                                                it has called the prober from all its sockets
    prober      PROBED                                                it has tried what ports it may, and none was hit

Who is hit has a packet of the prober's, which goes through both NATs, and dials along the way that it took. 256 of 64,512
ports and 1,024 probes miss each other twice in 100. Where neither end knows whose NAT it is, they take turns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.varint import Buffer

PROTOCOL = "/peertunnel/punch/1.0.0"
MAX_MESSAGE = 512  # bytes, without the length
MAX_ADDRESSES = 4  # of a proposal that count; one is called, and the ports of all are a hint
MAX_ADDRESS = 64  # bytes of one; IPv6, UDP and QUIC take 25
FIRST_PORT, LAST_PORT = 1024, 65535  # that NATs give away; RFC 4787, REQ-3
AHEAD, BEHIND = 128, 64  # ports after and before one that was seen, which NATs that count give away next


class Kind(IntEnum):
    """What a message says."""

    PROPOSE = 1
    OPENED = 2
    PROBED = 3


class Mapping(IntEnum):
    """What the NAT of an end does with its port (RFC 4787, section 4.1)."""

    UNKNOWN = 0
    STEADY = 1  # endpoint-independent, or no NAT
    CHANGING = 2  # address-dependent, or address- and port-dependent


class Role(Enum):
    """What an end does in a turn."""

    OPENER = "opener"
    PROBER = "prober"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an end tells of itself. addresses: where others see its port for QUIC, as binary multiaddrs."""

    mapping: Mapping
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Agreed:
    """Both ends know what to do.

    Attributes:
        theirs: what the peer has told; nobody has checked the addresses.
        turns: what this end does, one turn after the other; none where chance would not help.
    """

    theirs: Proposal
    turns: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer has called from all its sockets: they may be probed."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The peer has probed in vain."""


Event = Agreed | Opened | Probed


def encode(message: Proposal | Kind) -> bytes:
    """Write a message, without its length."""
    if isinstance(message, Kind):
        return encode_message([(1, int(message))])
    addresses = [address for address in message.addresses if len(address) <= MAX_ADDRESS][:MAX_ADDRESSES]
    head = (1, int(Kind.PROPOSE)), (2, int(message.mapping))
    return encode_message([*head, *((3, address) for address in addresses)])


def decode(data: bytes) -> Proposal | Kind:
    """Read a message; raises RemoteProtocolError for anything that is none. What is too long or too much is left out."""
    fields = decode_message(data)
    try:
        kind = Kind(fields.integer(1))
    except ValueError:
        raise RemoteProtocolError(f"a message is of the unknown kind {fields.integer(1)}") from None
    if kind is not Kind.PROPOSE:
        return kind
    try:
        mapping = Mapping(fields.integer(2))
    except ValueError:
        mapping = Mapping.UNKNOWN  # of a later version
    addresses = [address for address in fields.blobs(3) if len(address) <= MAX_ADDRESS]
    return Proposal(mapping, tuple(addresses[:MAX_ADDRESSES]))


def opens(one: Mapping, other: Mapping) -> tuple[bool, ...]:
    """Tell of each turn whether the first of two ends is the opener."""
    if one is other:
        return (True, False) if one is Mapping.UNKNOWN else ()
    return (one is Mapping.CHANGING or other is Mapping.STEADY,)


def likely_ports(seen: Iterable[int]) -> tuple[int, ...]:
    """Give the ports that come next where a NAT counts, by those that were seen last; the likeliest first."""
    found: dict[int, None] = {}
    for step in range(1, AHEAD + 1):
        for port in seen:
            found[port + step] = None
            if step <= BEHIND:
                found[port - step] = None
    return tuple(port for port in found if FIRST_PORT <= port <= LAST_PORT)


class _End:
    """One end of an exchange.

    Args:
        proposal: what it tells of itself.
    """

    def __init__(self, proposal: Proposal) -> None:
        self._proposal = proposal
        self._messages = Delimited(MAX_MESSAGE)
        self._outgoing = bytearray()
        self._turns: tuple[Role, ...] | None = None
        self._said = self._heard = 0  # of OPENED and PROBED

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive(self, data: Buffer) -> list[Event]:
        """Take bytes of the stream; look at `outgoing` afterwards.

        Raises:
            RemoteProtocolError: that is not what the peer should say now.
        """
        return [self._take(decode(message)) for message in self._messages.receive(data)]

    def opened(self) -> None:
        """Say that all our sockets have called the peer."""
        self._report(Role.OPENER, Kind.OPENED)

    def probed(self) -> None:
        """Say that we have probed in vain."""
        self._report(Role.PROBER, Kind.PROBED)

    def _report(self, role: Role, kind: Kind) -> None:
        if not self._is_due(role, self._said, self._heard - (role is Role.PROBER)):
            raise LocalProtocolError(f"{kind.name} is not to be said now")
        self._said += 1
        self._say(kind)

    def _say(self, message: Proposal | Kind) -> None:
        self._outgoing += encode_delimited(encode(message))

    def _is_due(self, role: Role, turn: int, done: int) -> bool:
        """Return whether it is our turn, of a number, in a role, as far as the other end has got."""
        return self._turns is not None and self._turns[turn : turn + 1] == (role,) and done == turn

    def _take(self, message: Proposal | Kind) -> Event:
        if isinstance(message, Proposal):
            return self._agree(message)
        if message is Kind.OPENED and self._is_due(Role.PROBER, self._heard, self._said):
            self._heard += 1
            return Opened()
        if message is Kind.PROBED and self._is_due(Role.OPENER, self._heard, self._said - 1):
            self._heard += 1
            return Probed()
        raise RemoteProtocolError(f"{message.name} came when it should not")

    def _agree(self, theirs: Proposal) -> Agreed:
        if self._turns is not None:
            raise RemoteProtocolError("a second proposal came")
        if not theirs.addresses:
            raise RemoteProtocolError("the peer does not know where it is")
        self._turns = self._divide(theirs.mapping)
        return Agreed(theirs, self._turns)

    def _divide(self, theirs: Mapping) -> tuple[Role, ...]:
        raise NotImplementedError


class Initiator(_End):
    """The end that opens the stream: `start`, then `receive`."""

    _has_started = False

    def start(self) -> None:
        """Send the proposal."""
        if self._has_started:
            raise LocalProtocolError("an exchange starts once")
        self._has_started = True
        self._say(self._proposal)

    def _divide(self, theirs: Mapping) -> tuple[Role, ...]:
        if not self._has_started:
            raise RemoteProtocolError("the peer answered before it was asked")
        ours = opens(self._proposal.mapping, theirs)
        return tuple(Role.OPENER if is_ours else Role.PROBER for is_ours in ours)


class Responder(_End):
    """The end that takes the stream: `receive`."""

    def _divide(self, theirs: Mapping) -> tuple[Role, ...]:
        self._say(self._proposal)
        return tuple(
            Role.PROBER if is_theirs else Role.OPENER for is_theirs in opens(theirs, self._proposal.mapping)
        )
