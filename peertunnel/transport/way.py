"""How a connection reaches its peer: directly, through a hole that both punched, or through a relay and its limits."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay carries of one circuit before it cuts it.

    size: bytes each way, None for any number. ends_at: on trio's clock (seconds), None for never.
    """

    size: int | None = None
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """The way that a connection takes.

    Attributes:
        kind: what the user reads.
        relay: the relay's peer id, "" without one.
        limit: what the relay allows; None if it sets no limit, or there is none.
    """

    kind: Literal["direct", "punched", "relayed"]
    relay: str = ""
    limit: Limit | None = None


DIRECT = Way("direct")
PUNCHED = Way("punched")
