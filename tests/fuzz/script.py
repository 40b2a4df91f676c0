"""The script that a target reads out of its input: choices, and the parts in which the rest comes."""

from collections.abc import Iterator


class Script:
    """The first bytes of an input: how the rest is cut, and what our own side does meanwhile."""

    def __init__(self, data: bytes) -> None:
        size = min(len(data), 16)
        self._choices, self._rest, self._at = data[:size], data[size:], 0

    def choose(self, below: int) -> int:
        """Return the next choice; all are 0 once the script has ended."""
        self._at += 1
        return self._choices[self._at - 1] % below if self._at <= len(self._choices) else 0

    def parts(self) -> Iterator[bytes]:
        """Yield the rest in parts."""
        while self._rest:
            size = (len(self._rest), 1, 5, 12, 13, 100)[self.choose(6)]
            part, self._rest = self._rest[:size], self._rest[size:]
            yield part
