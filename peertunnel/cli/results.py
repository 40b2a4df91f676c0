"""Events of the commands themselves: what they were run to find out."""

from dataclasses import dataclass, field
from typing import ClassVar

from peertunnel.events import Checked, Event, Offered, Pong, Shared


@dataclass(frozen=True, slots=True)
class Described(Event):
    """What `pt info` tells: this machine's peer id, where it would listen, its files, versions, and if QUIC is on."""

    kind: ClassVar[str] = "info"
    peer_id: str
    addresses: tuple[str, ...]
    identity: str
    config: str
    versions: tuple[str, ...]
    quic: str


@dataclass(frozen=True, slots=True)
class Judged(Event):
    """What `pt id` tells: how many bits an id has, and the id if it is a new one, which is for stdout only."""

    kind: ClassVar[str] = "id"
    bits: int
    id: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stepped(Event):
    """A step of `pt demo` is done: what happened, and the seconds since the start."""

    kind: ClassVar[str] = "step"
    step: int
    message: str
    seconds: float


# For stdout, and wanted however quiet the command is to be.
RESULTS = (Checked, Described, Judged, Offered, Pong, Shared, Stepped)
