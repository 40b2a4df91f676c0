"""The addresses that this machine's network interfaces have right now."""

import fcntl
import ipaddress
import re
import socket
import struct
import sys
from dataclasses import dataclass

import ifaddr

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Names that Docker, Podman, LXC, libvirt and Kubernetes give to what joins containers and guests to their host.
# A bridge such as OpenWrt's br-lan or Proxmox's vmbr0 is a real network.
_VIRTUAL = re.compile(
    r"br-[0-9a-f]{12}|(cali|cni|docker|flannel|lxcbr|lxdbr|podman|veth|virbr|vnet)[0-9a-z_.-]*"
)
_GET_FLAGS = 0x8913  # SIOCGIFFLAGS, Linux
_UP_AND_RUNNING = 0x1 | 0x40  # IFF_UP and IFF_RUNNING: the cable is in, too


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address and where it is: interface is the name, index the system's number (0 when it has none)."""

    interface: str
    index: int
    ip: IPAddress

    @property
    def is_virtual(self) -> bool:
        """Only containers or guests on this machine reach it; the name tells."""
        return _VIRTUAL.fullmatch(self.interface) is not None


_seen: tuple[InterfaceAddress, ...] = ()


def interface_addresses() -> tuple[InterfaceAddress, ...]:
    """List the addresses of every interface that is up, in the system's order; what was seen last if we can't look."""
    global _seen
    try:
        _seen = tuple(
            InterfaceAddress(adapter.name, adapter.index or 0, ipaddress.ip_address(_text(ip)))
            for adapter in ifaddr.get_adapters()
            if _is_running(adapter.name)
            for ip in adapter.ips
        )
    except OSError:
        pass  # no descriptors left, say: that is no news of the network
    return _seen


def _text(ip: ifaddr.IP) -> str:
    return ip.ip[0] if isinstance(ip.ip, tuple) else ip.ip


def _is_running(name: str) -> bool:
    """An interface that is down keeps its IPv4 addresses, but nobody reaches them."""
    if sys.platform != "linux":
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            request = fcntl.ioctl(probe, _GET_FLAGS, struct.pack("16s16x", name.encode()[:15]))
        except OSError:  # it went away meanwhile
            return False
    (flags,) = struct.unpack_from("@H", request, 16)
    return bool(flags & _UP_AND_RUNNING == _UP_AND_RUNNING)
