"""Searching the local network for gateways by SSDP.

A device must answer from the gateway's address, where we know that, and must be described at the address that it
answers from: nobody can make us call somebody else.
"""

import ipaddress
import socket

import trio

from peertunnel.portmap.gateway import Gateway
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import igd, ssdp

_TRIES = 2  # searches: multicast gets lost
_PATIENCE = 1.5  # seconds for the next answer; devices answer within one
_MAX_PLACES = 4  # what answers with more is no router
_HOPS = 2  # UPnP Device Architecture 2.0, section 1.3.2


class Search:
    """A search by one of our addresses, to be closed in the end; methods raise OSError."""

    def __init__(self, gateway: Gateway, own: ipaddress.IPv4Address) -> None:
        self._gateway = gateway
        self._own = own
        self._sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._seen: set[str] = set()
        self._tries = 0

    def close(self) -> None:
        """End the search."""
        self._sock.close()

    async def next_place(self) -> str | None:
        """Return the URL of the next description, None when no more come."""
        while len(self._seen) < _MAX_PLACES:
            if self._tries == 0 or (self._tries < _TRIES and not self._seen):
                await self._send()
            with trio.move_on_after(_PATIENCE):
                return await self._receive()
            if self._seen or self._tries == _TRIES:
                break
        return None

    async def _send(self) -> None:
        """Ask everybody, and the gateway itself, as some networks carry no multicast."""
        if self._tries == 0:
            await self._sock.bind((str(self._own), 0))
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, self._own.packed)
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
        self._tries += 1
        hosts = [ssdp.GROUP] if self._gateway.ip is None else [ssdp.GROUP, str(self._gateway.ip)]
        for host in hosts:
            for target in ssdp.TARGETS:
                await self._sock.sendto(ssdp.encode_search(target, host), (host, ssdp.PORT))

    async def _receive(self) -> str:
        while True:
            data, (source, *_) = await self._sock.recvfrom(ssdp.MAX_MESSAGE + 1)
            if self._gateway.ip not in (None, ipaddress.ip_address(source)):
                continue
            try:
                location = ssdp.decode(data).location
            except RemoteProtocolError:
                continue
            if location not in self._seen and igd.host_of(location) == ipaddress.ip_address(source):
                self._seen.add(location)
                return location
