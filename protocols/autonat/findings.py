"""What several servers found out about one of our addresses, and what follows from it.

Each server has one vote, its last answer. Two more that agree than disagree settle it, as in go-libp2p; three make it
certain enough to ask nobody else for a while. Where there is only one server to ask, its word is enough for the worse
news, and for an address of our own interfaces. Behind a NAT one server that gets through may be the one to which the NAT
is open just because we speak to it.
"""

import math
from collections.abc import Iterable
from enum import Enum

RECHECK = 15 * 60.0  # seconds until an address that is settled is asked about again
RETRY = 2 * 60.0  # seconds until a server that had no answer is asked again; go-libp2p's for each server
MAX_AGE = 4 * RECHECK  # seconds that an answer counts
_SETTLED = 2  # answers that agree, less those that don't; go-libp2p's minConfidence
_CERTAIN = 3  # the same; go-libp2p's targetConfidence


class Reachability(Enum):
    """Whether strangers can dial us."""

    PUBLIC = "public"
    PRIVATE = "private"
    UNKNOWN = "unknown"


class Findings:
    """The votes on one address.

    Args:
        is_own: whether it is an address of this machine, and not one that a NAT stands for; an attribute, too.
    """

    def __init__(self, *, is_own: bool) -> None:
        self.is_own = is_own
        self._votes: dict[str, tuple[bool, float]] = {}  # by server: whether it reached us, and when
        self._asked: dict[str, float] = {}  # by server, and when
        self._pending: set[str] = set()  # servers that have yet to answer
        self._silent: set[str] = set()  # servers whose last word was none

    def ask(self, servers: Iterable[str], now: float) -> list[str]:
        """Give the servers, of those that can be asked, to be asked now; `told` must be called for each.

        Args:
            servers: their peer ids, the best first.
            now: a clock that never goes back, seconds.
        """
        self._forget(now)
        rested = [server for server in servers if now >= self._rested_at(server)]
        missing = _CERTAIN - abs(self._balance)
        if missing <= 0:
            newest = max(at for _, at in self._votes.values())
            missing = 1 if now >= newest + RECHECK else 0
        missing = max(0, missing - len(self._pending))
        chosen = sorted(rested, key=lambda server: (server in self._votes, server in self._silent))[:missing]
        self._asked |= dict.fromkeys(chosen, now)
        self._pending.update(chosen)
        return chosen

    def told(self, server: str, was_reached: bool | None, now: float) -> None:
        """Take a server's answer, None if it has none."""
        self._pending.discard(server)
        if was_reached is None:
            self._silent.add(server)
        else:
            self._silent.discard(server)
            self._votes[server] = (was_reached, now)

    def conclude(self, servers: Iterable[str], now: float) -> Reachability:
        """Say what follows, when these are the servers that can be asked."""
        self._forget(now)
        fewer = max(1, min(_SETTLED, len({*servers, *self._votes} - self._silent)))
        if self._balance >= (fewer if self.is_own else _SETTLED):
            return Reachability.PUBLIC
        if -self._balance >= fewer:
            return Reachability.PRIVATE
        return Reachability.UNKNOWN

    @property
    def _balance(self) -> int:
        return sum(1 if was_reached else -1 for was_reached, _ in self._votes.values())

    def _rested_at(self, server: str) -> float:
        if server in self._pending:
            return math.inf
        if server in self._votes and server not in self._silent:
            return self._votes[server][1] + RECHECK
        return self._asked[server] + RETRY if server in self._asked else 0.0

    def _forget(self, now: float) -> None:
        self._votes = {server: vote for server, vote in self._votes.items() if now < vote[1] + MAX_AGE}
        self._asked = {server: at for server, at in self._asked.items() if now < at + RETRY}


def overall(addresses: Iterable[Reachability]) -> Reachability:
    """Say what follows for us from what is known of each address."""
    known = set(addresses)
    if Reachability.PUBLIC in known:
        return Reachability.PUBLIC
    return Reachability.PRIVATE if known == {Reachability.PRIVATE} else Reachability.UNKNOWN
