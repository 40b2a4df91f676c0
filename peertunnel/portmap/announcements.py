"""Routers multicast when they have restarted or have a new address (RFC 6887 section 14, RFC 6886 section 3.2.1).

What they say is not read, and epochs are not compared: to renew the mappings answers every question, and costs less.
"""

import ipaddress
import socket
import sys
from collections.abc import Callable

import trio

from peertunnel.interfaces import IPAddress
from peertunnel.protocols.portmap import ALL_HOSTS, CLIENT_PORT

_PACE = 0.05  # seconds for each, so that a flood costs nothing


async def listen(hear: Callable[[IPAddress], None]) -> None:
    """Tell who has sent something, each time, until cancelled; raises OSError."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Every machine is in this group already; bound to it, the socket hears nothing else.
        await sock.bind((ALL_HOSTS if sys.platform == "linux" else "", CLIENT_PORT))
        while True:
            _, (source, *_) = await sock.recvfrom(1)
            hear(ipaddress.ip_address(source))
            await trio.sleep(_PACE)
