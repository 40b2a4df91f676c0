"""What a tunnel leads to: a service, named by an id, a link or addresses."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from peertunnel.protocols.address import AddressError, address_of, split_address
from peertunnel.protocols.link import Link
from peertunnel.protocols.peerid import short_peer_id
from peertunnel.protocols.topic import derive_root, root_of_secret, topic, topics_to_publish, topics_to_search

_TAG_DAY = 2**63 - 1  # a day that never comes, so the tag is part of no topic


@dataclass(frozen=True, slots=True)
class Service:
    """Something to announce or to look for.

    name: what to show; never the id or secret itself. root: the secret it all derives from (32 bytes), None
    when only the peer counts. peer_id: the one peer that may serve it (base58), None when any may that knows
    the secret. addresses: multiaddrs to try at once, each ending in /p2p/ and the peer id.
    """

    name: str
    root: bytes | None = field(default=None, repr=False)
    peer_id: str | None = None
    addresses: tuple[str, ...] = ()

    @classmethod
    def from_id(cls, tunnel_id: str) -> "Service":
        """Name a service by its tunnel id; raises TunnelIdError. Slow on purpose: see derive_root."""
        root = derive_root(tunnel_id)
        return cls(f"service {topic(root, _TAG_DAY)[:3].hex()}", root)

    @classmethod
    def from_link(cls, link: Link) -> "Service":
        """Name a service by its link: pinned to one peer, and secret when the link has a secret."""
        circuits = tuple(f"{relay}/p2p-circuit/p2p/{link.peer_id}" for relay in link.relays)
        root = root_of_secret(link.secret) if link.secret is not None else None
        return cls(_peer_name(link.peer_id), root, link.peer_id, link.addresses + circuits)

    @classmethod
    def from_addresses(cls, addresses: Iterable[str]) -> "Service":
        """Name a service by the multiaddrs of its one peer; raises AddressError."""
        known = tuple(addresses)
        peer_id = _peer_of(known)
        return cls(_peer_name(peer_id), None, peer_id).with_addresses(known)

    def with_addresses(self, addresses: Iterable[str]) -> "Service":
        """Add multiaddrs to try, and pin the service to the peer that they name; raises AddressError."""
        known = tuple(addresses)
        if not known:
            return self
        peer_id = self.peer_id or _peer_of(known)
        added = self.addresses + tuple(address_of(address, peer_id) for address in known)
        return replace(self, peer_id=peer_id, addresses=tuple(dict.fromkeys(added)))

    def topics_to_publish(self, now: float) -> tuple[bytes, ...]:
        """Give the topics that a provider announces; now is the unix time in seconds."""
        return topics_to_publish(self.root, now) if self.root is not None else ()

    def topics_to_search(self, now: float) -> tuple[bytes, ...]:
        """Give the topics that a consumer looks for; now is the unix time in seconds."""
        return topics_to_search(self.root, now) if self.root is not None else ()

    def matches(self, peer_id: str, topics: Collection[bytes], now: float) -> bool:
        """Tell whether a peer (base58) that announces these topics is worth asking; now is the unix time.

        A pinned service wants its peer whatever it announces, and no other.
        """
        if self.peer_id is not None:
            return peer_id == self.peer_id
        return any(wanted in topics for wanted in self.topics_to_search(now))


def _peer_of(addresses: tuple[str, ...]) -> str:
    """Give the one peer that addresses name; address_of finds the ones that name another."""
    for address in addresses:
        _, peer_id = split_address(address)
        if peer_id is not None:
            return peer_id
    raise AddressError("an address of a peer ends in /p2p/ and its id")


def _peer_name(peer_id: str) -> str:
    return f"peer {short_peer_id(peer_id)}"
