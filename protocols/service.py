"""What a tunnel leads to: a service, named by an id, a link or addresses."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peertunnel.protocols.address import AddressError, address_of, split_address
from peertunnel.protocols.link import Link
from peertunnel.protocols.peerid import short_peer_id
from peertunnel.protocols.topic import (
    PROVIDERS,
    SEEKERS,
    derive_root,
    go_peertunnel_topic,
    root_of_secret,
    topic,
    topics_to_publish,
    topics_to_search,
)

_LABEL_BYTES = 16
_TAG_DAY = 2**63 - 1  # a day that never comes, so the tag is part of no topic


@dataclass(frozen=True, slots=True)
class Service:
    """Something to announce or to look for.

    name: what to show; never the id or secret itself. root: the secret it all derives from (32 bytes), None
    when only the peer counts. peer_id: the one peer that may serve it (base58), None when any may that knows
    the secret. addresses: multiaddrs to try at once, each ending in /p2p/ and the peer id. is_public: anyone may
    connect, and nobody proves anything. public_topic: the one topic of a public service that goes by its id.
    label: whose topics are meant, the providers' or those of the consumers that seek them.
    """

    name: str
    root: bytes | None = field(default=None, repr=False)
    peer_id: str | None = None
    addresses: tuple[str, ...] = ()
    is_public: bool = False
    public_topic: bytes | None = None
    label: bytes = PROVIDERS

    @classmethod
    def public(cls, tunnel_id: str) -> "Service":
        """Name a service that anyone may use by its id, which is told to everybody; raises TunnelIdError.

        The Go PeerTunnel announces and searches the same topic.
        """
        found = go_peertunnel_topic(tunnel_id)
        return cls(f"public service {tunnel_id!r}", is_public=True, public_topic=found)

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

    @property
    def label_to_know(self) -> str | None:
        """A name for the file of known peers that tells nobody the id; None for what goes by its key alone."""
        secret = self.root or self.public_topic
        if secret is None:
            return None
        return HKDF(SHA256(), _LABEL_BYTES, salt=None, info=b"peertunnel/v1/known").derive(secret).hex()

    def seekers(self) -> "Service":
        """Give what a provider looks for: the consumers that seek this service."""
        return replace(self, peer_id=None, addresses=(), label=SEEKERS)

    @property
    def seeks_seekers(self) -> bool:
        """Whether this is what a provider looks for: all the time, so less often than a consumer that waits."""
        return self.label == SEEKERS

    def topics_to_publish(self, now: float) -> tuple[bytes, ...]:
        """Give the topics to announce; now is the unix time in seconds."""
        if self.root is None:
            return self._public_topics()
        return topics_to_publish(self.root, now, self.label)

    def topics_to_search(self, now: float) -> tuple[bytes, ...]:
        """Give the topics to look for; now is the unix time in seconds."""
        if self.root is None:
            return self._public_topics()
        return topics_to_search(self.root, now, self.label)

    def _public_topics(self) -> tuple[bytes, ...]:
        return (self.public_topic,) if self.public_topic is not None and self.label == PROVIDERS else ()

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
