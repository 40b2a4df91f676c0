"""Receive windows: how much a peer may send on a stream before we have consumed what it sent.

Every stream starts with the 256 KiB of the yamux spec. A window that is consumed so fast that it limits the sender
doubles, up to 16 MiB, as long as the growth of all windows of a connection stays under one cap: memory is then
bounded by (streams x 256 KiB) + cap, whatever the peer does.
"""

INITIAL_WINDOW = 256 * 1024  # bytes; fixed by the yamux spec
MAX_WINDOW = 16 * 1024 * 1024  # bytes; go-yamux and rust-yamux stop here too
MEMORY_CAP = 32 * 1024 * 1024  # bytes of growth for all windows of a connection: two full windows
_MIN_ROUND_TRIP = 0.001  # seconds; on loopback scheduling, not the wire, spaces the updates


class Growth:
    """The growth that all receive windows of one connection share."""

    def __init__(self, cap: int = MEMORY_CAP) -> None:
        self.round_trip: float | None = None  # seconds; None until the first ping is answered
        self._left = cap

    def claim(self, window: int, elapsed: float) -> int:
        """Return by how many bytes to grow a window of which half was consumed in `elapsed` seconds.

        A sender that may have `window` bytes in flight moves at most one window per round trip, so half a window in
        under two round trips means that it may well be waiting for us. Before the first answered ping less than one
        round trip has passed, which is always such a case.
        """
        if self.round_trip is not None and elapsed > 2 * max(self.round_trip, _MIN_ROUND_TRIP):
            return 0
        growth = min(window, MAX_WINDOW - window, self._left)
        self._left -= growth
        return growth

    def release(self, window: int) -> None:
        """Give back what a window that is no longer needed had grown."""
        self._left += window - INITIAL_WINDOW


class ReceiveWindow:
    """The receive window of one stream.

    Attributes:
        left: bytes that the peer may still send.
        size: bytes that the peer may send in all before we have consumed any.
    """

    __slots__ = ("_consumed", "_growth", "_updated", "left", "size")

    def __init__(self, growth: Growth, now: float) -> None:
        self.left = INITIAL_WINDOW
        self.size = INITIAL_WINDOW
        self._growth = growth
        self._consumed = 0
        self._updated = now

    def consume(self, size: int, now: float) -> int:
        """Note that `size` bytes were consumed; return how many bytes to grant the peer now, mostly 0."""
        self._consumed += size
        if self._consumed * 2 < self.size:  # updates at half the window keep the sender moving
            return 0
        grown = self._growth.claim(self.size, now - self._updated)
        granted = self._consumed + grown
        self.size += grown
        self.left += granted
        self._consumed = 0
        self._updated = now
        return granted

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
