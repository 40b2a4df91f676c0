"""What a connection asks of its host about the streams that the peer opens."""

from typing import Protocol

from peertunnel.transport.stream import MuxedStream


class Router(Protocol):
    """Knows which protocols are served, and by whom."""

    def speaks(self, protocol: str) -> bool:
        """Return whether a stream of this protocol is welcome now."""
        ...

    def offered(self) -> list[str]:
        """Return the protocols that may be listed to a peer."""
        ...

    def route(self, stream: MuxedStream) -> None:
        """Take a stream whose protocol is settled."""
        ...
