"""What a libp2p peer tells about itself by mDNS (libp2p specs, discovery/mdns).

Each address is a string "dnsaddr=<multiaddr>/p2p/<peer id>". Ours has strings "pt=<tag>" besides, one for each
topic: others pass over them, and a tag tells nothing to those who don't know the topic already.
"""

import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from peertunnel.discovery.mdns_wire import MAX_STRING, SERVICE, Instance, Message, Name, encode_response
from peertunnel.interfaces import IPAddress
from peertunnel.protocols.address import AddressError, split_address

MAX_ADDRESSES = 32  # that we take from one peer at once; go-libp2p and rust-libp2p rarely tell more than 10
TTL = 120  # seconds; what RFC 6762 section 10 recommends for what hangs on an address

_ADDRESS = b"dnsaddr="
_TAG = b"pt="
_TAG_BYTES = 16  # of the hash; 128 bits don't collide
_MAX_STRINGS = 1000  # bytes of TXT in a message, so that all of it stays below 1,200 and any MTU


@dataclass(frozen=True, slots=True)
class Sighting:
    """One response's news of a peer.

    name: the random name it goes by. addresses: multiaddrs, each ending in /p2p/ and the peer id.
    tags: of the topics it announces. ttl: seconds that this holds; 0 withdraws it.
    """

    name: Name
    peer_id: str
    addresses: tuple[str, ...]
    tags: frozenset[str]
    ttl: int


def tag(topic: bytes) -> str:
    """Give what stands for a topic on the LAN: the first 16 bytes of its SHA-256, in hex."""
    return hashlib.sha256(topic).digest()[:_TAG_BYTES].hex()


def encode_peer(label: bytes, addresses: Iterable[str], tags: Iterable[str], ttl: int) -> list[bytes]:
    """Write responses of at most 1,200 bytes that tell all addresses of a peer, none when it has none.

    label: a random name; each response goes by its own, since go-libp2p reads no second one of the same name.
    addresses: multiaddrs ending in /p2p/ and the peer id. tags: at most eight. ttl: seconds.
    """
    marks = [_TAG + mark.encode() for mark in tags]
    return [
        encode_response(
            Instance(
                b"%s%d" % (label, number),
                (*(_ADDRESS + address.encode() for address in batch), *marks),
                _hosts(batch),
                _port(batch[0]),
                ttl,
            )
        )
        for number, batch in enumerate(_batches(addresses, _MAX_STRINGS - sum(map(len, marks))))
    ]


def sightings(message: Message) -> Iterator[Sighting]:
    """Read what a response tells about peers; whatever makes no sense is passed over.

    The name is the whole of what a PTR record points to: rust-libp2p leaves out the service's name.
    """
    named = {pointer.target: pointer.ttl for pointer in message.pointers if pointer.name == SERVICE}
    strings: defaultdict[Name, list[bytes]] = defaultdict(list)
    for text in message.texts:
        strings[text.name] += text.strings
    for name, ttl in named.items():
        found = _addresses(strings[name])
        peers = {peer_id for _, peer_id in found}
        if len(peers) == 1:
            addresses = dict.fromkeys(address for address, _ in found)
            yield Sighting(name, peers.pop(), tuple(addresses), _tags(strings[name]), ttl)


def ip_of(address: str) -> IPAddress | None:
    """Give the IP address that a multiaddr starts with, None when it starts otherwise."""
    _, name, value, *_ = [*address.split("/"), "", ""]
    return ipaddress.ip_address(value) if name in ("ip4", "ip6") else None


def _batches(addresses: Iterable[str], room: int) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for address in addresses:
        cost = 1 + len(_ADDRESS) + len(address)
        if not _is_local_news(address) or cost > 1 + MAX_STRING:
            continue
        if batch and size + cost > room:
            yield batch
            batch, size = [], 0
        batch.append(address)
        size += cost
    if batch:
        yield batch


def _is_local_news(address: str) -> bool:
    """A relay is no way to a neighbour, and a name would make the neighbours ask the world's DNS."""
    ip = ip_of(address)
    return ip is not None and not (ip.is_unspecified or ip.is_multicast) and "/p2p-circuit" not in address


def _hosts(addresses: list[str]) -> tuple[IPAddress, ...]:
    """The first address of each IP version; go-libp2p insists on one, though it only reads the strings."""
    by_version = {ip.version: ip for address in reversed(addresses) if (ip := ip_of(address)) is not None}
    return tuple(by_version.values())


def _port(address: str) -> int:
    value = [*address.split("/"), "", ""][4]
    return int(value) if value.isdecimal() else 0


def _addresses(strings: list[bytes]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for string in strings:
        if string.startswith(_ADDRESS) and len(found) < MAX_ADDRESSES:
            try:
                place, peer_id = split_address(string.removeprefix(_ADDRESS).decode())
            except (AddressError, UnicodeDecodeError):
                continue
            if peer_id is not None and _is_local_news(place):
                found.append((f"{place}/p2p/{peer_id}", peer_id))
    return found


def _tags(strings: list[bytes]) -> frozenset[str]:
    marks = {string.removeprefix(_TAG) for string in strings if string.startswith(_TAG)}
    return frozenset(mark.decode("ascii", "replace") for mark in marks if len(mark) == 2 * _TAG_BYTES)
