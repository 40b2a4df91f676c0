"""TCP to peers: which addresses, and from which port.

Dials leave from the port that we listen on where they can: a NAT then gives the whole node one mapping, which others
see and tell us, and through which a hole can be punched. Where that port is taken for the very same connection, or a
host on the way confuses the two ends' dials, another one does.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.race import Attempt, alternate, failing
from peertunnel.transport.upgrade import UpgradeError

SockAddress = tuple[str, int] | tuple[str, int, int, int]
Upgrade = Callable[[socket.socket, ID], Awaitable[MuxedConnection]]
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EINVAL)


def is_tcp(address: Multiaddr) -> bool:
    """Return whether an address is an IP address or a name, and a TCP port."""
    names = [protocol.name for protocol in address.protocols()]
    hosts = ("ip4", "ip6", "dns", "dns4", "dns6")
    return len(names) >= 2 and names[0] in hosts and names[1] == "tcp" and names[2:] in ([], ["p2p"])


class Tcp:
    """Dials over TCP.

    Args:
        upgrade: secures a connected socket.

    Attributes:
        sources: the addresses that we listen on, by family: dials leave from there.
    """

    def __init__(self, upgrade: Upgrade) -> None:
        self.sources: dict[int, SockAddress] = {}
        self._upgrade = upgrade

    def can_dial(self, address: Multiaddr) -> bool:
        """Return whether an address is one for us."""
        return is_tcp(address)

    async def plan(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> list[Attempt]:
        """Return an attempt for each place that the addresses lead to, IPv6 and IPv4 in turn."""
        found: list[tuple[int, Attempt]] = []
        for address in addresses:
            try:
                targets = await resolve(address, "tcp", socket.SOCK_STREAM)
            except OSError as error:
                found.append((socket.AF_INET, Attempt(address, failing(error))))
                continue
            found += [
                (family_of(target), Attempt(address, self._attempt(peer_id, target))) for target in targets
            ]
        return alternate(found)

    def _attempt(self, peer_id: ID, target: SockAddress) -> Callable[[], Awaitable[MuxedConnection]]:
        async def run() -> MuxedConnection:
            source = None if target[0].startswith("127.") or target[0] == "::1" else self.source(target)
            if source is not None:
                try:
                    return await self._upgrade(await connect(target, source), peer_id)
                except UpgradeError:
                    pass  # two dials that crossed became one connection, with two clients and no server
                except OSError as error:
                    if error.errno not in _TAKEN:
                        raise
            return await self._upgrade(await connect(target), peer_id)

        return run

    def source(self, target: SockAddress) -> SockAddress | None:
        """Return where a dial to an address leaves from, None for anywhere."""
        return self.sources.get(family_of(target))


def family_of(target: SockAddress) -> int:
    """Return the address family of a socket address."""
    return socket.AF_INET6 if len(target) == 4 else socket.AF_INET


async def resolve(address: Multiaddr, transport: str, kind: socket.SocketKind) -> list[SockAddress]:
    """Return the socket addresses behind a multiaddr; raises OSError for a name that leads nowhere."""
    name = address.protocols()[0].name
    host, port = str(address.value_for_protocol(name)), int(str(address.value_for_protocol(transport)))
    families = {"ip6": socket.AF_INET6, "dns6": socket.AF_INET6, "dns": socket.AF_UNSPEC}
    family = families.get(name, socket.AF_INET)
    try:
        return [target for *_, target in await trio.socket.getaddrinfo(host, port, family, kind)]
    except UnicodeError as error:  # Python's rules for names are not the library's
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
    except RuntimeError as error:  # there is no thread left to ask in
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from error


async def connect(target: SockAddress, source: SockAddress | None = None) -> socket.socket:
    """Connect to an address.

    Args:
        source: where from, a port that may be listened on at the same time; None for anywhere.

    Raises:
        OSError: there was no connection.
    """
    sock = socket.socket(family_of(target), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            _share(sock)
            sock.bind(source)
        try:
            sock.connect(target)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock.fileno())
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _share(sock: socket.socket) -> None:
    """Let others use the socket's port, too."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def sources_of(names: Iterable[SockAddress]) -> dict[int, SockAddress]:
    """Return the first of the addresses that we listen on, by family."""
    found: dict[int, SockAddress] = {}
    for name in names:
        found.setdefault(family_of(name), name)
    return found
