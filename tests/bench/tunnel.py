"""An open way to the target, and the plainest use of it."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.usage import resident_bytes

_ECHO = b"e"  # asks the server of the load generator to send back what follows
_PATIENCE = 30.0  # seconds
_STALL = 0.5  # seconds in which a connection has taken nothing, and will take no more
_FLOOD = bytes(256 * 1024)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where its clients connect, and the processes that carry their bytes.

    Attributes:
        address: host:port.
        pids: processes that count, with their descendants, for what the tunnel uses.
        entering: words before a client's command, which then runs where the tunnel begins.
    """

    address: str
    pids: tuple[int, ...]
    entering: tuple[str, ...] = ()

    def connect(self) -> socket.socket:
        """Open a connection through the tunnel and see one byte come back."""
        host, _, port = self.address.rpartition(":")
        connection = socket.create_connection((host, int(port)), _PATIENCE)
        connection.sendall(_ECHO + b"?")
        if connection.recv(1) != b"?":
            raise ConnectionError(f"{self.address} does not send back what it gets")
        return connection

    def stalled_bytes(self, count: int) -> int:
        """Return the resident memory with so many connections that are sent to, and whose echoes nobody reads."""
        with ExitStack() as connections:
            stalled = [connections.enter_context(self.connect()) for _ in range(count)]
            for connection in stalled:
                connection.settimeout(_STALL)
            while stalled:
                stalled = [connection for connection in stalled if _takes(connection)]
            return resident_bytes(self.pids)

    def idle_bytes(self, count: int) -> int:
        """Return the resident memory with so many idle connections open."""
        with ExitStack() as connections:
            for _ in range(count):
                connections.enter_context(self.connect())
            return resident_bytes(self.pids)


def _takes(connection: socket.socket) -> bool:
    try:
        return connection.send(_FLOOD) > 0
    except TimeoutError:
        return False
