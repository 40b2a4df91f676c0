"""How many requests an AutoNAT server serves; the figures are go-libp2p's defaults."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

MINUTE = 60.0  # seconds
MAX_REQUESTS = 60  # a minute, in all
MAX_REQUESTS_PER_PLACE = 12  # of them from one network: peer ids are free
MAX_ELSEWHERE = 12  # of them for another address than the asker's
MAX_RUNNING_PER_PLACE = 2  # requests at a time from one network


class Limits:
    """Counts the requests of the last minute."""

    def __init__(self) -> None:
        self._served: deque[tuple[float, str]] = deque()
        self._elsewhere: deque[float] = deque()
        self._running: Counter[str] = Counter()

    def admit(self, place: str, now: float) -> bool:
        """Return whether a request from a network is served, and count it if so."""
        while self._served and self._served[0][0] <= now - MINUTE:
            self._served.popleft()
        of_place = sum(1 for _, other in self._served if other == place)
        if (
            len(self._served) >= MAX_REQUESTS
            or of_place >= MAX_REQUESTS_PER_PLACE
            or self._running[place] >= MAX_RUNNING_PER_PLACE
        ):
            return False
        self._served.append((now, place))
        return True

    @contextmanager
    def running(self, place: str) -> Iterator[None]:
        """Serve a request that was admitted."""
        self._running[place] += 1
        try:
            yield
        finally:
            self._running[place] -= 1
            if not self._running[place]:
                del self._running[place]

    def admit_elsewhere(self, now: float) -> bool:
        """Return whether another address than the asker's may be dialled, and count it if so."""
        while self._elsewhere and self._elsewhere[0] <= now - MINUTE:
            self._elsewhere.popleft()
        if len(self._elsewhere) >= MAX_ELSEWHERE:
            return False
        self._elsewhere.append(now)
        return True
