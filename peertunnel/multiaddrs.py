"""Multiaddrs as peers and users tell them, and what the library makes of them."""

from collections.abc import Iterable, Iterator

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


def readable(texts: Iterable[str]) -> Iterator[Multiaddr]:
    """Read multiaddrs; what the library can't read, or not take apart, is left out."""
    for text in texts:
        try:
            address = Multiaddr(text)
            str(address), list(address.protocols())  # it looks at some parts only when asked for them
        except (ValueError, TypeError, multiaddr.exceptions.Error):
            continue
        yield address


def check_readable(texts: Iterable[str]) -> None:
    """Raise AddressError for a multiaddr that the library can't read, though it looks like one."""
    for text in texts:
        if next(readable([text]), None) is None:
            raise AddressError(f"{text!r} is not a valid multiaddr")
