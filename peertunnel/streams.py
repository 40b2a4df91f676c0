"""What a tunnel needs of a stream, whatever carries it: one call that joins it to a local socket."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from libp2p.stream_muxer.exceptions import MuxedConnUnavailable

REPLAY_LIMIT = (
    64 * 1024
)  # bytes kept for a stream that the peer may drop unseen; more than a request's first flight


class Unavailable(MuxedConnUnavailable):
    """The connection has ended, or takes no new streams."""


class End(Enum):
    """How a spliced stream ended; the value is what the user reads."""

    FINISHED = "finished"
    LOCAL_RESET = "reset by the local side"
    PEER_RESET = "reset by the peer"
    NOT_SPOKEN = "refused: the peer does not serve tunnels"
    LOST = "connection lost"
    USED_UP = "the relay's limit was reached"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a spliced stream.

    Attributes:
        end: how it ended.
        sent: bytes that went from the local socket into the stream.
        received: bytes that went from the stream into the local socket.
        replay: what was sent, if the stream was reset before any byte came back and the socket is still whole: the
            stream may be opened again with it.
    """

    end: End
    sent: int
    received: int
    replay: bytes | None = None

    @property
    def was_turned_away(self) -> bool:
        """Whether the peer has reset the stream before any byte came back, as when its target refuses."""
        return self.end is End.PEER_RESET and not self.received


class Stream(Protocol):
    """One stream of a multiplexed connection to a peer.

    Attributes:
        sent_bytes: bytes that a splice has sent so far.
        received_bytes: bytes that a splice has delivered so far.
    """

    sent_bytes: int
    received_bytes: int

    @property
    def peer(self) -> str:
        """The peer id of the other end."""
        ...

    def attach(
        self,
        sock: socket.socket,
        on_end: Callable[[Outcome], None],
        replay: bytes | None = None,
        *,
        is_silent: bool = False,
    ) -> None:
        """Attach the stream to a connected, non-blocking socket until both directions have ended.

        The socket is closed at the end, or aborted if the stream was; only where the outcome carries a replay does it
        stay open.

        Args:
            sock: stream socket; it belongs to the stream from now on.
            on_end: called once at the end, perhaps at once; it must not wait.
            replay: bytes to send ahead of the socket's; not None asks for a replay if the peer drops the stream.
            is_silent: whether the socket can hardly have anything to send yet, as one that was dialled just now.
        """
        ...

    async def splice(self, sock: socket.socket, replay: bytes | None = None) -> Outcome:
        """Attach the stream to a socket, wait for the end and return the outcome; cancelled, abort the stream."""
        ...

    def abort(self) -> None:
        """Reset the stream at once."""
        ...
