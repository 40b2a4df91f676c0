"""Keepalive: when to ping, and when a silent peer is dead."""

INTERVAL = 5.0  # seconds of silence before a ping
TIMEOUT = 8.0  # seconds of silence behind a ping before the peer is dead; 5 + 8 stays under 15 s
ROUND_TRIP_INTERVAL = 10.0  # seconds between measurements of the round trip; rust-yamux has the same


class Keepalive:
    """The clockwork of one session; every sign of life of the peer puts its death off.

    Args:
        now: seconds on any clock that never runs backwards.
    """

    def __init__(self, now: float) -> None:
        self._heard = now
        self._sent: float | None = None  # when the unanswered ping left
        self._measured = now - ROUND_TRIP_INTERVAL  # measure the round trip at once
        self._value = 0

    def heard(self, now: float) -> None:
        """Note a sign of life: bytes that arrived, or that the peer's host took from us."""
        self._heard = now

    def deadline(self) -> float:
        """Return when to look at `is_dead` and `is_due` again, in seconds of the same clock."""
        if self._sent is not None:
            return max(self._sent, self._heard) + TIMEOUT
        return min(self._heard + INTERVAL, self._measured + ROUND_TRIP_INTERVAL)

    @property
    def is_waiting(self) -> bool:
        """Whether a ping is unanswered."""
        return self._sent is not None

    def is_dead(self, now: float) -> bool:
        """Return whether a ping went unanswered for too long and nothing else came either."""
        return self._sent is not None and now >= self.deadline()

    def is_due(self, now: float) -> bool:
        """Return whether it is time for a ping."""
        return self._sent is None and now >= self.deadline()

    def ping(self, now: float) -> int:
        """Note that a ping leaves now; return the opaque value that it carries."""
        self._value = (self._value + 1) & 0xFFFFFFFF
        self._sent = now
        return self._value

    def answered(self, value: int, now: float) -> float | None:
        """Return the round trip in seconds, or None for an answer to no ping of ours."""
        if self._sent is None or value != self._value:
            return None
        round_trip = now - self._sent
        self._sent = None
        self._measured = now
        return round_trip
