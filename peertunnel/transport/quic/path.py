"""The way to a peer, as the engine tells of it: where the peer is, how long it takes, and what has come through."""

from typing import NamedTuple

from peertunnel.transport.quic import _engine


class View(NamedTuple):
    """What the engine knows of the way now.

    Attributes:
        host: the peer's address; it may move.
        port: the peer's port.
        round_trip: seconds, smoothed.
        acknowledgements: how many have come.
        sent: bytes of datagrams that have left, but for those that got lost.
        received: bytes of datagrams that have come.
    """

    host: str = "0.0.0.0"
    port: int = 0
    round_trip: float = 0.0
    acknowledgements: int = 0
    sent: int = 0
    received: int = 0


class Path:
    """A connection's way to its peer.

    Args:
        engine: has the connection.
        number: the connection's number there.
    """

    def __init__(self, engine: _engine.Endpoint, number: int) -> None:
        self._engine = engine
        self._number = number
        self._view = View()
        self._acknowledgements = 0  # when it was asked last
        self.look()

    def look(self) -> View:
        """Return what the engine says now; its last word of a connection that has ended."""
        if (told := self._engine.path(self._number)) is not None:
            self._view = View(*told)
        return self._view

    def progressed(self) -> bool:
        """Return whether the peer has taken some of what we sent since this was asked last."""
        before, self._acknowledgements = self._acknowledgements, self.look().acknowledgements
        return self._acknowledgements > before
