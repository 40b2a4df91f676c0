"""Listening for peers: one TCP socket per address, and a handshake of bounded time for whoever connects."""

import errno
import logging
import socket
from collections.abc import Awaitable, Callable

import trio
from multiaddr import Multiaddr

from peertunnel.transport.handshakes import Handshakes
from peertunnel.transport.raw import socket_address
from peertunnel.transport.upgrade import UpgradeError

BACKLOG = 1024  # connections that the system may hold for us; capped by net.core.somaxconn
_PAUSE = 0.1  # seconds without accepting when the process has run out of file descriptors
_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_log = logging.getLogger(__name__)


class ListenError(Exception):
    """An address cannot be listened on."""


def bind_tcp(addresses: list[Multiaddr]) -> list[socket.socket]:
    """Bind and listen on /ip4|ip6/.../tcp/PORT addresses; where the port is 0 they share one that the system picks.

    A machine without IPv6 listens on IPv4 alone.

    Raises:
        ListenError: an address is taken, is not this machine's, or none could be used.
    """
    sockets: list[socket.socket] = []
    shared = 0
    try:
        for address in addresses:
            family = socket.AF_INET6 if "ip6" in address else socket.AF_INET
            host = str(address.value_for_protocol("ip6" if family == socket.AF_INET6 else "ip4"))
            wanted = int(str(address.value_for_protocol("tcp")))
            try:
                sock = _bind(family, host, wanted or shared)
            except OSError as error:
                if (
                    error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                    and family == socket.AF_INET6
                    and sockets
                ):
                    continue
                if error.errno == errno.EADDRINUSE and not wanted:
                    sock = _bind(family, host, 0)
                else:
                    raise
            sockets.append(sock)
            if not wanted:
                shared = sock.getsockname()[1]
    except (OSError, ValueError, LookupError) as error:
        for sock in sockets:
            sock.close()
        raise ListenError(f"{address}: {getattr(error, 'strerror', None) or error}") from error
    return sockets


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        # Only now: dials may leave from this port, but nobody else can have it for listening.
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts peers on one socket.

    Args:
        sock: listening, non-blocking socket.
        accept: secures a connected socket and serves it; raises UpgradeError if it cannot.

    Attributes:
        address: the multiaddr that the socket is bound to.
    """

    def __init__(self, sock: socket.socket, accept: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._sock = sock
        self.address = socket_address(sock.getsockname())
        self._accept = accept
        self._handshakes = Handshakes()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Accept peers until cancelled, or closed."""
        with self._scope:
            await trio.lowlevel.checkpoint()  # we may have been closed before we ran
            await self._run()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._sock.fileno())
                await self._handshakes.make_room()  # who comes next waits in the backlog
                for _ in range(self._handshakes.free):
                    try:
                        sock, _ = self._sock.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in _OUT_OF_FILES:
                            await trio.sleep(_PAUSE)
                        break  # otherwise the peer has given up already
                    sock.setblocking(False)
                    nursery.start_soon(self._handshake, sock, self._handshakes.begin())

    async def _handshake(self, sock: socket.socket, place: trio.CancelScope) -> None:
        try:
            with self._handshakes.run(place):
                await self._accept(sock)
        except (UpgradeError, trio.TooSlowError):
            pass  # strangers come and go; what they wanted is not ours to report
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("a peer that has connected was not served")

    def close(self) -> None:
        """Stop listening; handshakes that are under way end."""
        self._scope.cancel()
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock.fileno())
            self._sock.close()
