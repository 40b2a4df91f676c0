"""Peers as the DHT's messages name them, in bytes, and as the rest of us does, in text."""

import functools
from collections.abc import Iterable

import multiaddr.exceptions
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel import multiaddrs
from peertunnel.protocols.address import AddressError, split_address
from peertunnel.protocols.kademlia.messages import Contact
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id

_REMEMBERED = 1024  # peer ids: all the nodes near a key name the same ones


def id_bytes(peer_id: str) -> bytes:
    """Give a base58 peer id's bytes."""
    return ID.from_base58(peer_id).to_bytes()


@functools.lru_cache(_REMEMBERED)
def id_text(peer_id: bytes) -> str | None:
    """Give a peer id in base58, None when the bytes are none."""
    try:
        return parse_peer_id(str(ID(peer_id)))
    except PeerIdError:
        return None


def address_bytes(addresses: Iterable[str]) -> tuple[bytes, ...]:
    """Give multiaddrs as bytes, each without a final /p2p/ID; those that aren't any are left out."""
    encoded: dict[bytes, None] = {}
    for address in addresses:
        try:
            encoded[Multiaddr(split_address(address)[0]).to_bytes()] = None
        except (AddressError, ValueError, multiaddr.exceptions.Error):
            continue
    return tuple(encoded)


def address_texts(contact: Contact, peer_id: str) -> tuple[str, ...]:
    """Give a contact's addresses, each ending in /p2p/ and the peer id; those that we can't read are left out."""
    return multiaddrs.address_texts(contact.addresses, peer_id)


def contact_at(address: str) -> Contact | None:
    """Read a multiaddr that ends in a peer id; None for any other text."""
    try:
        place, peer_id = split_address(address)
    except AddressError:
        return None
    addresses = address_bytes([place])
    return Contact(id_bytes(peer_id), addresses) if peer_id and addresses else None
