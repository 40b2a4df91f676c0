"""A UDP socket as QUIC wants it: batches in both directions, whole packets only, the right address of ours.

Linux takes many datagrams to one address with one call, and gives many from one (UDP_SEGMENT, UDP_GRO: udp(7)).
Elsewhere, and where a network driver refuses, each goes by itself.
"""

import errno
import socket
import struct
import sys
from fcntl import ioctl
from termios import FIONREAD

from multiaddr import Multiaddr

from peertunnel.transport.raw import socket_address
from peertunnel.transport.tcp import SockAddress

# Linux, from linux/udp.h, linux/in.h and linux/in6.h: Python knows few of them.
_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_PKTINFO, _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 8, 10, 23, 3
_IP_RECVERR, _IPV6_RECVERR, _MSG_ERRQUEUE = 11, 25, 0x2000
MAX_SEGMENTS = 44  # datagrams in a batch: as many full Ethernet frames as one call takes
BUFFER = 7 * 1024 * 1024  # bytes that the system is asked to hold each way; as in go-libp2p
_ANCILLARY = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20)
_UNBATCHED = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT)  # how drivers say that they know no batches
_IS_LINUX = sys.platform == "linux"
_waiting = bytearray(struct.calcsize("i"))  # bytes of the next datagram, as FIONREAD gives them
_received = memoryview(bytearray(65_536))  # shared: what is read is handed on before the next read


class UdpSocket:
    """A bound, non-blocking socket.

    Args:
        name: where to bind.

    Raises:
        OSError: the address is taken, or not this machine's.

    Attributes:
        segments: how many datagrams one `send` takes.
        is_batched: whether one `receive` gives many.
    """

    def __init__(self, name: SockAddress) -> None:
        self.is_ipv6 = len(name) == 4
        self.sock = socket.socket(socket.AF_INET6 if self.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.segments = 1
        self.is_batched = False
        self._tells_local = False
        try:
            self.sock.setblocking(False)
            if self.is_ipv6:
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.sock.bind(name)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            if _IS_LINUX:
                self._set_up(is_wildcard=name[0] in ("", "::", "0.0.0.0"))
        except OSError:
            self.sock.close()
            raise

    def _set_up(self, is_wildcard: bool) -> None:
        if self.is_ipv6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
            self.sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
            self.sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        if is_wildcard:
            level, option = (
                (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
                if self.is_ipv6
                else (socket.IPPROTO_IP, _IP_PKTINFO)
            )
            self.sock.setsockopt(level, option, 1)
            self._tells_local = True
        try:
            self.sock.setsockopt(_UDP, _UDP_GRO, 1)
            self.is_batched = True
            self.sock.getsockopt(_UDP, _UDP_SEGMENT)
            self.segments = MAX_SEGMENTS
        except OSError:
            pass  # a kernel before 5.0

    @property
    def name(self) -> SockAddress:
        """The address that the socket is bound to."""
        name: SockAddress = self.sock.getsockname()
        return name

    @property
    def address(self) -> Multiaddr:
        """The same as a multiaddr."""
        return Multiaddr(f"{socket_address(self.name, 'udp')}/quic-v1")

    def receive(self) -> tuple[memoryview, int, SockAddress, str | None]:
        """Read datagrams from one address: all of them, the size of each, where from, and the address of ours.

        The bytes are valid until the next call, on any socket. Where the socket has only one address, it is None.

        Raises:
            BlockingIOError: there is none.
            OSError: an earlier datagram came to nobody; `failures` tells.
        """
        size, ancillary, _, source = self.sock.recvmsg_into([_received], _ANCILLARY)
        stride, local = size, None
        for level, kind, data in ancillary:
            if level == _UDP and kind == _UDP_GRO:
                stride = struct.unpack_from("i", data)[0]
            elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                local = socket.inet_ntop(socket.AF_INET, data[4:8])
            elif level == socket.IPPROTO_IPV6 and kind == getattr(socket, "IPV6_PKTINFO", -1):
                local = socket.inet_ntop(socket.AF_INET6, data[:16])
        return _received[:size], stride, source, local

    def has_more(self) -> bool:
        """Return whether another datagram waits; a fifth of what it costs to read in vain."""
        ioctl(self.sock, FIONREAD, _waiting)
        return any(_waiting)

    def send(self, data: bytes, segment: int, to: SockAddress, local: str | None) -> None:
        """Send datagrams of `segment` bytes, the last one perhaps shorter; 0 says that it is a single one.

        Raises:
            BlockingIOError: the system takes none now.
            OSError: there is no way to the address, or an earlier datagram came to nobody; `failures` tells.
        """
        ancillary: list[tuple[int, int, bytes]] = []
        if local is not None and self._tells_local:
            ancillary.append(self._from(local, to))
        if not segment or segment >= len(data):
            self.sock.sendmsg([data], ancillary, 0, to)
            return
        if self.segments > 1:
            try:
                batch = (_UDP, _UDP_SEGMENT, struct.pack("H", segment))
                self.sock.sendmsg([data], [*ancillary, batch], 0, to)
                return
            except OSError as error:
                if error.errno not in _UNBATCHED:
                    raise
                self.segments = 1
        for start in range(0, len(data), segment):
            self.sock.sendmsg([data[start : start + segment]], ancillary, 0, to)

    def failures(self) -> list[tuple[int, SockAddress]]:
        """Return which datagrams came to nobody: why, an error number, and where they were sent."""
        found: list[tuple[int, SockAddress]] = []
        while _IS_LINUX:
            try:
                _, ancillary, _, to = self.sock.recvmsg(0, 512, _MSG_ERRQUEUE)
            except OSError:
                break
            kinds = ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
            found += [
                (struct.unpack_from("I", data)[0], to)
                for level, kind, data in ancillary
                if (level, kind) in kinds
            ]
        return found

    def _from(self, local: str, to: SockAddress) -> tuple[int, int, bytes]:
        """Say which address of ours to send from."""
        if self.is_ipv6:
            scope = to[3] if len(to) == 4 else 0
            packed = socket.inet_pton(socket.AF_INET6, local) + struct.pack("I", scope)
            return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed
        return socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("I", 0) + socket.inet_aton(local) + bytes(4)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
