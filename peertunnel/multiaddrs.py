"""Multiaddrs as peers and users tell them, and what the library makes of them."""

import functools
from collections.abc import Iterable, Iterator

import multiaddr.exceptions
from multiaddr import Multiaddr

from peertunnel.protocols.address import MAX_ADDRESS, AddressError, address_of

_REMEMBERED = 1024  # addresses: peers are told of again and again


def address_texts(addresses: Iterable[bytes], peer_id: str) -> tuple[str, ...]:
    """Give a peer's addresses as text, each once and ending in /p2p/ and the peer id; what makes no sense is left out."""
    found: dict[str, None] = {}
    for address in addresses:
        if len(address) > MAX_ADDRESS:
            continue  # its text would be longer still
        if (text := _text(address, peer_id)) is not None:
            found[text] = None
    return tuple(found)


@functools.lru_cache(_REMEMBERED)
def _text(address: bytes, peer_id: str) -> str | None:
    try:
        return address_of(str(Multiaddr(address)), peer_id)
    except (AddressError, ValueError, multiaddr.exceptions.Error):
        return None


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
