"""One multicast socket for each interface and IP version.

One for all would know neither where a message came from nor be allowed more than 20 interfaces (Linux,
igmp_max_memberships). On Linux it is bound to the group's address: then no message from beyond the LAN can
reach it, and it takes no answers away from the system's own mDNS service on the same port.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterable

from peertunnel.discovery.mdns_wire import MAX_MESSAGE
from peertunnel.interfaces import InterfaceAddress

PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}  # RFC 6762 section 3
MAX_LINKS = 64  # sockets; a host of containers may have hundreds of interfaces
_HOPS = 255  # RFC 6762 section 11
_IP_MULTICAST_ALL = 49  # Linux: by default a socket also hears the groups that others have joined


def links(addresses: Iterable[InterfaceAddress]) -> tuple[InterfaceAddress, ...]:
    """Choose the address to speak from for each interface and IP version; link-local in IPv6, if there is one.

    Loopback only has IPv4: Linux routes no IPv6 multicast there, and IPv4's needs neither route nor flag.
    """
    chosen: dict[tuple[int, int, str], InterfaceAddress] = {}
    for address in sorted(
        addresses, key=lambda address: address.ip.is_link_local != (address.ip.version == 6)
    ):
        if address.ip.version == 4 or (address.index and not address.ip.is_loopback):
            chosen.setdefault((address.index, address.ip.version, address.interface), address)
    return tuple(chosen[key] for key in sorted(chosen)[:MAX_LINKS])


def open_link(address: InterfaceAddress, port: int = PORT) -> socket.socket:
    """Open a non-blocking socket that sends to the group and hears it on this interface only; raises OSError."""
    family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.ip.version == 4:
            _join4(sock, address, port)
        else:
            _join6(sock, address, port)
        undo.pop_all()
        return sock


def send(sock: socket.socket, payload: bytes) -> None:
    """Send a message to the group; one that can't be sent now is lost, as on any network."""
    with contextlib.suppress(OSError):
        sock.sendto(payload, (GROUPS[4 if sock.family == socket.AF_INET else 6], sock.getsockname()[1]))


def receive(sock: socket.socket) -> tuple[bytes, str]:
    """Take a message and the sender's IP address; raises BlockingIOError, or OSError when the link is gone."""
    data, source = sock.recvfrom(MAX_MESSAGE + 1)
    return data, source[0].partition("%")[0]


def _join4(sock: socket.socket, address: InterfaceAddress, port: int) -> None:
    group = GROUPS[4]
    sock.bind((group if sys.platform == "linux" else "", port))
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    ip = address.ip.packed
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + ip)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ip)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)


def _join6(sock: socket.socket, address: InterfaceAddress, port: int) -> None:
    group, index = GROUPS[6], address.index
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((group if sys.platform == "linux" else "::", port, 0, index))
    membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
