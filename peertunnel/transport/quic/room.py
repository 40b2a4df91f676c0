"""How much of ours the engine holds for one peer: less while messages, which stand behind all of it, are on the way."""

import math

from peertunnel.protocols.yamux.window import CEILING_RATE
from peertunnel.transport.quic import _engine

SEND_WINDOW = 16 * 1024 * 1024  # bytes
CEILING = 512 * 1024  # bytes beside messages at a short round trip; measured: half as much gains nothing


class Room:
    """The room in the engine for one connection.

    Args:
        engine: has the connection.
        number: the connection's number there.

    Attributes:
        round_trip: seconds, the shortest so far; beside bulk it is longer.
        is_narrow: whether there is less, for the sake of messages.
    """

    def __init__(self, engine: _engine.Endpoint, number: int) -> None:
        self.round_trip = math.inf
        self.is_narrow = False
        self._engine = engine
        self._number = number

    def change(self) -> None:
        """Make it narrow, or wide again."""
        self.is_narrow = not self.is_narrow
        ceiling = max(CEILING, int(CEILING_RATE * self.round_trip))
        self._engine.limit(self._number, min(ceiling, SEND_WINDOW) if self.is_narrow else SEND_WINDOW)
