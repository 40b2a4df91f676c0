"""The engine: QUIC for libp2p, sans I/O, in Rust (`engine/`).

Times are seconds on one clock of the caller's. Addresses are as Python's sockets give and take them. Streams are known
by their QUIC ids. A connection's number is never used again, and calls for one that has ended do nothing.
"""

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
SockAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

class Endpoint:
    """All connections of one UDP socket, dialled and accepted.

    Args:
        certificate: X.509, DER.
        key: its private key, PKCS#8, DER.
        seed: 32 random bytes, from which all that strangers must not foretell follows; only the keys and nonces of TLS, and
            the phase that BBR begins with, are drawn from the system.
        reset_key: 32 bytes; who restarts with the same ones tells old peers at once that their connections are gone.
        server: whether to accept connections.
        streams: how many streams a peer may have open with us.
        windows: bytes that a peer may send ahead of the reader, on a stream and on a connection; and bytes that we send
            ahead of a peer's acknowledgement, on a connection; to other machines and to this one.
        patience: seconds of silence before a connection counts as lost, and seconds between signs of life.
        datagrams: bytes of the largest datagrams to try, to other machines and to this one.
        congestion: "cubic" or "bbr", to other machines and to this one.
    """

    def __init__(
        self,
        certificate: bytes,
        key: bytes,
        seed: bytes,
        reset_key: bytes,
        server: bool,
        streams: int,
        windows: tuple[tuple[int, int, int], tuple[int, int, int]],
        patience: tuple[float, float],
        datagrams: tuple[int, int],
        congestion: tuple[str, str],
    ) -> None: ...
    def connect(self, to: SockAddress, now: float) -> int:
        """Begin a handshake and return the connection's number."""
    def stop_accepting(self) -> None:
        """Begin no more handshakes that others ask for."""

    def receive(self, data: Buffer, stride: int, source: SockAddress, local: str | None, now: float) -> None:
        """Take datagrams of `stride` bytes, the last one perhaps shorter, that came in one read.

        local: the address of ours that they were sent to, where the socket has several.
        """
    def transmit(self, segments: int, now: float) -> tuple[bytes, int, SockAddress, str | None] | None:
        """Give up to `segments` datagrams to send: all of them, the size of each, where to, from which address.

        A size of 0 says that it is a single one.
        """
    def timeout(self) -> float | None:
        """Return when `handle_timeouts` wants to be called."""
    def handle_timeouts(self, now: float) -> None:
        """Do what is due."""
    def turn(
        self, segments: int, now: float
    ) -> tuple[
        list[tuple[str, int, int | None, str]],
        tuple[bytes, int, SockAddress, str | None] | None,
        float | None,
    ]:
        """Give what happened or, where nothing had, what to send; and what `timeout` returns.

        Args:
            segments: as for `transmit`; 0 sends nothing.
            now: seconds.

        Of what happened, "stopped" first: kind, connection, stream, reason.

        connected: the handshake is over; the peer's certificate must be checked now. lost: the connection has ended, the
        reason is "" if we closed it; what has come can be read until the next turn. opened: the peer opened a stream, on which there may be data already. readable:
        there is data, an end or a reset. writable: a `write` that took nothing, 0 bytes, may be tried again. stopped: the peer
        reads no further. delivered: the peer has all that we sent, and the end. available: `open` may be tried again.
        """
    def open(self, connection: int) -> int | None:
        """Open a stream; None while the peer allows no more."""
    def write(self, connection: int, stream: int, data: Buffer) -> int | None:
        """Send some of `data` and return how many bytes; None if the stream or its connection has ended."""
    def read_into(self, connection: int, stream: int, buffer: Buffer) -> tuple[int, bool | None] | None:
        """Read bytes into a buffer and return how many, and what follows; None if the stream was aborted.

        True is the end, False is nothing yet, None may be anything: read again. What was read the peer may send again.
        """
    def is_reset(self, connection: int, stream: int) -> bool:
        """Return whether the peer has aborted a stream that is not being read."""
    def finish(self, connection: int, stream: int) -> bool:
        """Send the end of a stream; False where the peer has stopped it, and nobody is to be told."""
    def reset(self, connection: int, stream: int, sending: bool) -> None:
        """Read nothing more from a stream, and tell the peer; if `sending`, send nothing more either, and not again what got lost."""
    def close(self, connection: int, code: int, now: float) -> None:
        """Close a connection at once."""
    def ping(self, connection: int) -> None:
        """Send something that the peer must acknowledge."""
    def limit(self, connection: int, size: int) -> None:
        """Hold so many bytes for a peer from now on, at most: sent ahead of its acknowledgement, or still to be sent."""
    def rebound(self, connection: int) -> None:
        """Move a connection to the socket's new address."""
    def peer_certificate(self, connection: int) -> bytes | None:
        """Return the peer's certificate, DER; None where it has shown several."""
    def path(self, connection: int) -> tuple[str, int, float, int, int, int] | None:
        """Return the peer's address and port now, the smoothed round trip, and how many acknowledgements have come.

        And how many bytes of datagrams have left, but for those that got lost, and have arrived.
        """
