"""Multiaddrs of a peer from the bytes in which peers tell them."""

from collections.abc import Iterable

import multiaddr.exceptions
from multiaddr import Multiaddr

from peertunnel.protocols.address import AddressError, address_of


def address_texts(addresses: Iterable[bytes], peer_id: str) -> tuple[str, ...]:
    """Give a peer's addresses as text, each once and ending in /p2p/ and the peer id; what makes no sense is left out."""
    found: dict[str, None] = {}
    for address in addresses:
        try:
            found[address_of(str(Multiaddr(address)), peer_id)] = None
        except (AddressError, ValueError, multiaddr.exceptions.Error):
            continue
    return tuple(found)
