"""Receive windows: how much a peer may send on a stream before we have consumed what it sent.

Every stream starts with the 256 KiB of the yamux spec. A window that is consumed so fast that it limits the sender
doubles, up to 16 MiB, as long as the growth of all windows of a connection stays under one cap: memory is then
bounded by (streams x 256 KiB) + cap, whatever the peer does. What one stream has needed the next ones get in one step:
the line is the same, and doubling takes a round trip each time.

Streams that their windows limit share a line as their windows are large. Those that lag behind the largest therefore
grow sooner, and where the cap leaves no room for that, larger ones shrink: what was consumed is not granted again.

What a sender may have in flight is also what a small message of another stream stands behind. While messages come on
one of a connection's streams no window of the others is used beyond a ceiling, and it is opened in smaller steps.
"""

from collections import deque
from math import inf

INITIAL_WINDOW = 256 * 1024  # bytes; fixed by the yamux spec
MAX_WINDOW = 16 * 1024 * 1024  # bytes; go-yamux and rust-yamux stop here too
MEMORY_CAP = 32 * 1024 * 1024  # bytes of growth for all windows of a connection: two full windows
CEILING = 1024 * 1024  # bytes in flight beside messages; measured: half as much costs bulk up to a fifth
CEILING_RATE = 512 * 1024 * 1024  # bytes/s that pass at any round trip: more than most lines have
MESSAGE = 4096  # bytes of the longest frame that counts as a message
MESSAGES = 8  # in a row that make a stream interactive: bulk has fewer in front and none in between
HOLD = 0.1  # seconds behind a message in which the next one is expected; bulk is slower meanwhile
_UPDATES = 8  # for each window or ceiling; measured: 2, as others have, reach 0.6 of the throughput at 100 ms
_PATIENCE = 2  # round trips for half a window that limits its sender: one, and one for what delays updates
_LAGGING = 4  # round trips for windows smaller than the largest: all take equally long, and end up alike
_MIN_ROUND_TRIP = 0.001  # seconds; on loopback scheduling, not the wire, spaces the updates
_ROUND_TRIPS = 6  # measurements, a minute; the ceiling goes by the smallest, others have stood behind bulk


class Growth:
    """What all receive windows of one connection share: the growth, and the ceiling beside messages.

    Attributes:
        ceiling: bytes that a sender may have in flight beside messages.
        messages_until: seconds; until then messages of some stream are expected.
    """

    def __init__(self, cap: int = MEMORY_CAP) -> None:
        self.ceiling = MAX_WINDOW
        self.messages_until = -inf
        self._cap = self._left = cap
        self._needed = INITIAL_WINDOW  # bytes; the largest window that a stream has had
        self._largest = INITIAL_WINDOW  # bytes; less where a smaller window has found no room to grow
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS)

    def measured(self, round_trip: float) -> None:
        """Take a round trip (seconds) into account."""
        self._round_trips.append(round_trip)
        self.ceiling = max(CEILING, int(CEILING_RATE * min(self._round_trips)))

    def claim(self, window: int, elapsed: float) -> int:
        """Return by how many bytes to grow a window of which half was consumed in `elapsed` seconds.

        A sender that may have `window` bytes in flight moves at most one window per round trip, so half a window in
        under two round trips means that it may well be waiting for us. Before the first answered ping less than one
        round trip has passed, which is always such a case.
        """
        wanted = max(2 * window, min(self._needed, self._left // 4))  # a leap leaves most for others
        growth = min(wanted, MAX_WINDOW) - window
        if not growth or self._is_slow(window, elapsed):
            return 0
        # Who is ahead leaves as much for those behind.
        room = self._left if window <= self._largest else self._left // 2
        if growth > room:
            self._largest = min(self._largest, 2 * window)
            return 0
        self._left -= growth
        self._needed = max(self._needed, window + growth)
        self._largest = max(self._largest, window + growth)
        return growth

    def _is_slow(self, window: int, elapsed: float) -> bool:
        if not self._round_trips:
            return False
        patience = _PATIENCE if window >= self._largest else _LAGGING
        return elapsed > patience * max(self._round_trips[-1], _MIN_ROUND_TRIP)

    def reclaim(self, window: int, consumed: int) -> int:
        """Return how many of the bytes that were consumed in a window it has to do without, for smaller ones to grow."""
        half = window // 2
        if window <= self._largest or self._left >= half:
            return 0
        self._left += (given := min(consumed, half))
        return given

    def release(self, window: int) -> None:
        """Give back what a window that is no longer needed had grown."""
        self._left += window - INITIAL_WINDOW
        if self._left == self._cap:
            self._largest = INITIAL_WINDOW


class ReceiveWindow:
    """The receive window of one stream.

    Attributes:
        left: bytes that the peer may still send.
        size: bytes that the peer may send in all before we have consumed any.
    """

    __slots__ = ("_consumed", "_growth", "_messages", "_period_began", "_period_consumed", "left", "size")

    def __init__(self, growth: Growth, now: float) -> None:
        self.left = INITIAL_WINDOW
        self.size = INITIAL_WINDOW
        self._growth = growth
        self._consumed = 0
        self._messages = 0  # in a row, up to now
        self._period_consumed = 0  # bytes since the growth was last thought of
        self._period_began = now

    def take(self, size: int, now: float) -> None:
        """Note that a frame of `size` bytes, at most `left`, has begun."""
        self.left -= size
        if size > MESSAGE:
            self._messages = 0
        elif self._messages < MESSAGES:
            self._messages += 1
        else:
            self._growth.messages_until = now + HOLD

    def consume(self, size: int, now: float) -> int:
        """Note that `size` bytes were consumed; return how many bytes to grant the peer now, mostly 0."""
        self._consumed += size
        growth = self._growth
        if now < growth.messages_until and growth.ceiling < self.size:
            return self._open_up_to(growth.ceiling, now)
        self._period_consumed += size
        if self._consumed * _UPDATES < self.size:
            return 0
        given = growth.reclaim(self.size, self._consumed)
        granted = self._consumed - given
        self.size -= given
        if self._period_consumed * 2 >= self.size:
            grown = growth.claim(self.size, now - self._period_began)
            self.size += grown
            granted += grown
            self._begin_period(now)
        self.left += granted
        self._consumed = 0
        return granted

    def _open_up_to(self, ceiling: int, now: float) -> int:
        granted = self._consumed - (self.size - ceiling)
        if granted * _UPDATES < ceiling:
            return 0
        self.left += granted
        self._consumed -= granted
        self._begin_period(now)
        return granted

    def _begin_period(self, now: float) -> None:
        self._period_consumed = 0
        self._period_began = now

    @property
    def unread(self) -> int:
        """Bytes that came and are still in our memory."""
        return self.size - self.left - self._consumed

    def drain(self, size: int) -> None:
        """Note that `size` bytes were consumed of a stream on which no more will come."""
        self._consumed += size

    def close(self) -> None:
        """Give back the growth of this window; call it once, when the stream has ended."""
        self._growth.release(self.size)
