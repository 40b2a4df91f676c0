"""A connected socket for the handshake, before the data path takes it over."""

import socket

import trio
from multiaddr import Multiaddr

from peertunnel.transport.addresses import is_loopback
from peertunnel.transport.way import DIRECT, Way

# Bytes that wait in the system for the line; messages of other streams would stand behind them. Measured at 100 Mbit/s and
# 50 ms: an echo beside bulk takes 99 ms, without this 333, at the same throughput. HTTP/2 servers take as much or less.
AHEAD = 128 * 1024


def socket_address(
    sock_name: tuple[str, int] | tuple[str, int, int, int], transport: str = "tcp"
) -> Multiaddr:
    """Return what `getpeername` or `getsockname` said as a multiaddr; mapped IPv4 addresses lose their prefix."""
    host, port = sock_name[0].removeprefix("::ffff:"), sock_name[1]
    host = host.partition("%")[0]  # a zone means nothing to anybody else
    return Multiaddr(f"/ip{6 if ':' in host else 4}/{host}/{transport}/{port}")


def set_up(sock: socket.socket, peer: str) -> None:
    """Have the system send at once what it is given, and take no more than it can send soon.

    Args:
        sock: connected over TCP.
        peer: the IP address at its other end.
    """
    # Nagle's algorithm would hold each step of the handshake back until the last one is acknowledged: 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT") and not is_loopback(peer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, AHEAD)


class RawSocket:
    """A non-blocking stream socket, for as long as tasks wait for it: while the connection is being secured.

    Args:
        sock: connected; belongs to this object from now on.
        is_initiator: whether ours is the client's side of the handshakes.
        way: how the socket reaches the peer.
        address: the peer's multiaddr, where the socket does not know it: behind a relay.
    """

    def __init__(
        self, sock: socket.socket, is_initiator: bool, way: Way = DIRECT, address: Multiaddr | None = None
    ) -> None:
        self.sock = sock
        self.is_initiator = is_initiator
        self.way = way
        self.local_port = 0
        self._remote: tuple[str, int] | None = None
        if address is None:
            name = sock.getpeername()
            set_up(sock, str(name[0]))
            self._remote = (str(name[0]), int(name[1]))
            self.local_port = int(sock.getsockname()[1])
            address = socket_address(name)
        self._address = address
        self._write_lock = trio.Lock()  # a TLS session answers from its reader while its writer writes

    async def read(self, n: int | None = None) -> bytes:
        """Return up to `n` bytes, b"" at the end."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self.sock.fileno())
                return self.sock.recv(65536 if n is None else n)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError as error:
                raise ConnectionError("the connection was closed") from error

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        rest = memoryview(data)
        async with self._write_lock:
            while rest:
                try:
                    rest = rest[self.sock.send(rest) :]
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self.sock.fileno())
        except trio.ClosedResourceError as error:
            raise ConnectionError("the connection was closed") from error

    def close_now(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock.fileno())
            self.sock.close()

    async def close(self) -> None:
        """Close the socket."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the peer's host and port, None behind a relay."""
        return self._remote

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the peer's address."""
        return [self._address]
