"""What happened, as values: logs, --json and the terminal display are readers of this one stream."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from peertunnel.errors import PeerTunnelError

Path: TypeAlias = Literal["direct", "punched", "relayed", "none"]
Verdict: TypeAlias = Literal["ok", "warning", "problem", "unknown"]
_encode = json.JSONEncoder(separators=(",", ":")).encode  # for one value, as cheap as it gets; not for a dict


class Event:
    """Something that happened."""

    __slots__ = ()
    kind: ClassVar[str]
    __match_args__: ClassVar[tuple[str, ...]]

    def to_json(self) -> str:
        """Give the event as a JSON object: its kind first, then its fields under their own names."""
        fields = [f'{{"kind":"{self.kind}"']
        for name in self.__match_args__:  # its fields, which dataclasses.fields would gather anew each time
            value = getattr(self, name)
            fields.append(f'"{name}":{value if type(value) is int else _encode(value)}')
        return ",".join(fields) + "}"


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The node is up: its peer id and the addresses that it announces."""

    kind: ClassVar[str] = "ready"
    peer_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddressesChanged(Event):
    """The node is announced under other addresses now: a relay was reserved at, or lost, say."""

    kind: ClassVar[str] = "addresses"
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """A local endpoint accepts connections; several endpoints are several events."""

    kind: ClassVar[str] = "listening"
    local: str


@dataclass(frozen=True, slots=True)
class PathChanged(Event):
    """The best way to a peer is another one now.

    rtt_ms: its round trip in milliseconds, if measured. limit_bytes, limit_seconds: what a relay still carries.
    transport: "tcp" or "quic"; with a relay, what leads to it.
    """

    kind: ClassVar[str] = "path"
    peer_id: str
    path: Path
    rtt_ms: float | None
    limit_bytes: int | None = None
    limit_seconds: float | None = None
    transport: Literal["tcp", "quic"] | None = None


@dataclass(frozen=True, slots=True)
class PunchFailed(Event):
    """No direct way to a peer has come of all that was tried, and why; it is tried again later."""

    kind: ClassVar[str] = "punch-failed"
    peer_id: str
    reason: str


# These two are not frozen: there may be thousands a second, and to make a frozen one takes three times as long.
@dataclass(slots=True)
class TunnelOpened(Event):
    """A connection is bridged: on the consumer remote is who connected, on the provider the target."""

    kind: ClassVar[str] = "tunnel-opened"
    tunnel: int
    peer_id: str
    remote: str


@dataclass(slots=True)
class TunnelClosed(Event):
    """A bridged connection ended: payload bytes to and from the peer, and why."""

    kind: ClassVar[str] = "tunnel-closed"
    tunnel: int
    sent_bytes: int
    received_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class TrafficMeasured(Event):
    """Payload bytes of all tunnels so far, also of those that are still open; told when they have changed."""

    kind: ClassVar[str] = "traffic"
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class ProofsFailed(Event):
    """Somebody tried to come in without knowing the secret: how often in all, and who and where from at last."""

    kind: ClassVar[str] = "proofs-failed"
    count: int
    peer_id: str
    place: str


@dataclass(frozen=True, slots=True)
class Pong(Event):
    """A peer answered a ping in rtt_ms milliseconds; limit_bytes and limit_seconds are those of PathChanged."""

    kind: ClassVar[str] = "pong"
    peer_id: str
    path: Path
    address: str
    rtt_ms: float
    limit_bytes: int | None = None
    limit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Shared(Event):
    """A link is ready to be given away; its secret is for stdout only, so the repr leaves it out."""

    kind: ClassVar[str] = "shared"
    link: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Offered(Event):
    """A relay serves: via is the multiaddr that others give with --via."""

    kind: ClassVar[str] = "relay"
    via: str


@dataclass(frozen=True, slots=True)
class Checked(Event):
    """`pt doctor` has looked at something: what it found, and what to do about it, a sentence each; no advice is "".

    check: what it looked at.
    """

    kind: ClassVar[str] = "check"
    check: str
    verdict: Verdict
    finding: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is not as it should be, and the work goes on."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, slots=True)
class LeftOut(Event):
    """Who reads this was not fast enough: how many lines are missing here."""

    kind: ClassVar[str] = "left-out"
    lines: int


@dataclass(frozen=True, slots=True)
class ErrorOccurred(Event):
    """Something failed: the exit code that it would end the program with, a sentence and a hint."""

    kind: ClassVar[str] = "error"
    code: int
    message: str
    hint: str

    @classmethod
    def of(cls, error: PeerTunnelError) -> "ErrorOccurred":
        """Report an error without raising it."""
        return cls(error.exit_code, error.message, error.hint)


Emit: TypeAlias = Callable[[Event], None]


class Complaint:
    """About one thing that is looked at again and again: made once, until it is well again or wrong in another way."""

    def __init__(self) -> None:
        self._made = ""

    def make(self, error: PeerTunnelError, emit: Emit) -> None:
        """Report what is wrong, if it is news."""
        if error.message != self._made:
            self._made = error.message
            emit(ErrorOccurred.of(error))

    def withdraw(self) -> None:
        """Note that all is well."""
        self._made = ""


class Events:
    """A fan-out: whatever is emitted reaches every reader, in the order in which they subscribed.

    Attributes:
        afterwards: does what can wait until bytes at hand have gone; the reactor's, once there is one.
    """

    def __init__(self, *readers: Emit) -> None:
        self._readers = list(readers)
        self.afterwards: Callable[[Callable[[], None]], None] = lambda work: work()

    def subscribe(self, reader: Emit) -> None:
        """Hand every event from now on to reader."""
        self._readers.append(reader)

    def __call__(self, event: Event) -> None:
        """Emit one event."""
        for reader in self._readers:
            reader(event)
