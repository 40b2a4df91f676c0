"""How streams that begin at different times share a line: simulated, from the sender's turns to the receiver's windows."""

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import count

import pytest

from peertunnel.protocols.yamux import INITIAL_WINDOW, MEMORY_CAP
from peertunnel.protocols.yamux.window import Growth, ReceiveWindow

BATCH = 512 * 1024  # bytes of one stream's turn
FRAME = 65535  # bytes
ALIKE = 3.0  # times the smallest share that the largest may be: windows double, so one may just have done so


class Line:
    """A line with a queue, which streams take turns to fill, and whose other end consumes what arrives.

    Args:
        rate: bytes/s.
        round_trip: seconds, of an empty line.
        starts: seconds at which each stream begins.
    """

    def __init__(self, rate: float, round_trip: float, starts: Sequence[float]) -> None:
        self._rate = rate
        self._way = round_trip / 2
        self._growth = Growth()
        self._growth.measured(round_trip)
        self._windows: dict[int, ReceiveWindow] = {}
        self._credit = [0] * len(starts)
        self._turns: deque[int] = deque()
        self._is_busy = False
        self._number = count()
        self._events: list[tuple[float, int, str, int, int]] = []
        self.arrived = [0] * len(starts)
        for stream, start in enumerate(starts):
            self._at(start, "begin", stream, INITIAL_WINDOW)

    def run(self, seconds: float) -> list[int]:
        """Run until a time; give how many bytes of each stream have arrived in its last half."""
        while self._events[0][0] < seconds:
            now, _, what, stream, size = heapq.heappop(self._events)
            if what == "begin":
                self._windows[stream] = ReceiveWindow(self._growth, now)
                self._grant(stream, size)
            elif what == "arrive":
                self._arrive(stream, size, now)
                self.arrived[stream] += size * (now >= seconds / 2)
            elif what == "grant":
                self._grant(stream, size)
            else:
                self._is_busy = False
            self._send(now)
        return self.arrived

    def _at(self, when: float, what: str, stream: int, size: int) -> None:
        heapq.heappush(self._events, (when, next(self._number), what, stream, size))

    def _grant(self, stream: int, size: int) -> None:
        if not self._credit[stream]:
            self._turns.append(stream)
        self._credit[stream] += size

    def _arrive(self, stream: int, size: int, now: float) -> None:
        self._windows[stream].take(size, now)
        if granted := self._windows[stream].consume(size, now):
            self._at(now + self._way, "grant", stream, granted)
        assert sum(window.size - INITIAL_WINDOW for window in self._windows.values()) <= MEMORY_CAP

    def _send(self, now: float) -> None:
        if self._is_busy or not self._turns:
            return
        stream = self._turns.popleft()
        left = min(self._credit[stream], BATCH)
        self._credit[stream] -= left
        if self._credit[stream]:
            self._turns.append(stream)
        self._is_busy = True
        sent = now + left / self._rate
        self._at(sent, "sent", stream, left)
        while left:
            self._at(sent + self._way, "arrive", stream, size := min(left, FRAME))
            left -= size


@pytest.mark.parametrize(
    ("rate", "round_trip", "starts"),
    [
        pytest.param(1e9, 0.001, [0.0] * 8, id="8 on one machine"),
        pytest.param(4e8, 0.02, [number / 10 for number in range(8)], id="8, one after the other"),
        pytest.param(1.25e8, 0.1, [0.0, 0.0, 2.0], id="a third beside two that have all memory"),
        pytest.param(2.5e8, 0.2, [0.0, 0.0, 0.0, 2.0], id="a fourth on a long line"),
        pytest.param(
            1.25e8, 0.1, [number / 5 for number in range(20)], id="20 that all need more than there is"
        ),
    ],
)
def test_streams_get_equal_shares_whenever_they_begin(
    rate: float, round_trip: float, starts: list[float]
) -> None:
    shares = Line(rate, round_trip, starts).run(8.0 + max(starts))
    assert max(shares) <= ALIKE * min(shares), shares
    wanted = min(rate, MEMORY_CAP / 2 / round_trip)  # half the windows that there may be have to do
    assert sum(shares) >= 0.9 * wanted * (8.0 + max(starts)) / 2


def test_one_stream_alone_may_have_16_mib_in_flight() -> None:
    (share,) = Line(1e9, 0.1, [0.0]).run(8.0)
    assert share / 4.0 == pytest.approx(16 * 1024 * 1024 / 0.1, rel=0.15)
