"""How many proofs may fail: one budget per service, since peer ids are free, shared fairly among where callers come from.

Every attempt takes a token before anything is computed, and gets it back when it succeeds. Tokens come back slowly, and
the more slowly the more attempts have failed of late. Whoever waits from where the fewest have failed comes first, so a
flood from one place does not hold up the others. At one place (a relay, an office's router) it is the peer that has failed
least; among equals chance decides, and not who came first, since a flood is always there before.
"""

import ipaddress
import random
from collections import OrderedDict
from typing import NamedTuple

import trio

from peertunnel.protocols.circuit.book import network_of

BURST = 16  # attempts that may fail at once: people mistype, and programs restart in groups
FIRST_INTERVAL = 0.1  # seconds until a token comes back
LAST_INTERVAL = (
    1.0  # seconds, after many failures: 30 million guesses a year, of 2**50 at the least for a good id
)
STEP = 16  # failures that double the interval
QUIET = 60.0  # seconds without a failure, after which all is forgotten
_ROUNDING = 1e-6  # tokens; a wait that floating point has made a trifle too short is long enough
MAX_COUNTED = 1024  # places and peers whose failures are counted


class Origin(NamedTuple):
    """Where an attempt comes from: a place, and a peer (its id) that is there."""

    place: str
    peer_id: str


def place_of(remote: tuple[str, int] | None) -> str:
    """Name the network a caller is in: an IPv4 address, or the /56 of an IPv6 address, which one subscriber has."""
    if remote is None:
        return "relayed"
    ip = ipaddress.ip_address(remote[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return network_of(str(ip))
    return str(ip)


class Budget:
    """The failed proofs that a service can bear."""

    def __init__(self) -> None:
        self.failures = 0
        self._tokens = float(BURST)
        self._counted_at = trio.current_time()
        self._failed_at = self._counted_at
        self._recent = 0
        self._counted: OrderedDict[str, int] = OrderedDict()  # failures, by place and by peer id
        self._waiting: list[tuple[Origin, trio.Event]] = []

    async def take(self, origin: Origin) -> None:
        """Wait for a token, which is lost unless `give_back` returns it."""
        turn = trio.Event()
        entry = (origin, turn)
        self._waiting.append(entry)
        try:
            while not turn.is_set():
                self._refill()
                if self._tokens > 1 - _ROUNDING:
                    self._tokens -= 1
                    self._next().set()
                else:
                    with trio.move_on_after((1 - self._tokens) * self._interval):
                        await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self._tokens += 1
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def give_back(self, origin: Origin) -> None:
        """Note that an attempt has succeeded."""
        self._tokens = min(BURST, self._tokens + 1)
        for name in origin:
            self._counted.pop(name, None)

    def fail(self, origin: Origin) -> None:
        """Note that an attempt has failed."""
        self._refill()
        self.failures += 1
        self._recent += 1
        self._failed_at = trio.current_time()
        for name in set(origin):
            self._counted[name] = self._counted.pop(name, 0) + 1
        while len(self._counted) > MAX_COUNTED:
            self._counted.popitem(last=False)

    @property
    def _interval(self) -> float:
        """Seconds until a token comes back."""
        return min(FIRST_INTERVAL * 2.0 ** (self._recent // STEP), LAST_INTERVAL)

    def _refill(self) -> None:
        now = trio.current_time()
        self._tokens = min(BURST, self._tokens + (now - self._counted_at) / self._interval)
        self._counted_at = now
        if now - self._failed_at > QUIET:
            self._recent = 0
            self._counted.clear()

    def _next(self) -> trio.Event:
        """Choose who comes next, and take it off the list."""
        failed = {origin: [self._counted.get(name, 0) for name in origin] for origin, _ in self._waiting}
        least = min(failed.values())
        chosen = random.choice([origin for origin, count in failed.items() if count == least])
        entry = next(entry for entry in self._waiting if entry[0] == chosen)
        self._waiting.remove(entry)
        return entry[1]
