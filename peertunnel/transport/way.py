"""How a connection reaches its peer: directly, through a hole that both punched, or through a relay and its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay carries of one circuit before it cuts it.

    Attributes:
        size: bytes, None for any number.
        ends_at: on trio's clock (seconds), None for never.
        carried: tells how many bytes of `size` are used up.
    """

    size: int | None
    ends_at: float | None
    carried: Callable[[], int] = lambda: 0

    @property
    def bytes_left(self) -> int | None:
        """How many more bytes go for certain, None for any number."""
        return None if self.size is None else max(0, self.size - self.carried())

    def is_nearly_over(self, now: float, seconds: float) -> bool:
        """Return whether half of the bytes or less is left, or no more than so many seconds.

        now: on trio's clock.
        """
        left = self.bytes_left
        is_used_up = left is not None and self.size is not None and 2 * left <= self.size
        return is_used_up or (self.ends_at is not None and self.ends_at - now <= seconds)


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
