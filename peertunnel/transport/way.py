"""How a connection reaches its peer: directly, through a hole that both punched, or through a relay and its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from peertunnel.streams import End

_EARLY = 2.0  # seconds before the end by our clock at which a relay may cut: its own began to run first
_UNSEEN = 65_536  # bytes that may be on the way when a relay cuts: it counts them, and we don't see them


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

    def is_over(self, now: float) -> bool:
        """Return whether a circuit that has been cut was used up; now: on trio's clock (seconds)."""
        left = self.bytes_left
        is_used_up = left is not None and self.size is not None and left <= min(self.size // 2, _UNSEEN)
        return is_used_up or (self.ends_at is not None and self.ends_at - now <= _EARLY)


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

    def loss(self, now: float) -> End:
        """Say what it means for streams that a connection on this way was lost; now: on trio's clock (seconds)."""
        return End.USED_UP if self.limit is not None and self.limit.is_over(now) else End.LOST


DIRECT = Way("direct")
PUNCHED = Way("punched")
