"""Events of the commands themselves: what they were run to find out."""

from dataclasses import dataclass
from typing import ClassVar

from peertunnel.events import Event, Offered, Pong, Shared


@dataclass(frozen=True, slots=True)
class Described(Event):
    """What `pt info` tells: this machine's peer id, where it would listen, its files, and versions."""

    kind: ClassVar[str] = "info"
    peer_id: str
    addresses: tuple[str, ...]
    identity: str
    config: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stepped(Event):
    """A step of `pt demo` is done: what happened, and the seconds since the start."""

    kind: ClassVar[str] = "step"
    step: int
    message: str
    seconds: float


# For stdout, and wanted however quiet the command is to be.
RESULTS = (Described, Offered, Pong, Shared, Stepped)
