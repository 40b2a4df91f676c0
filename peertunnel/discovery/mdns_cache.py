"""Who is on the LAN, as far as we have heard: bounded, and up to date within a second."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from peertunnel.discovery.mdns_peer import MAX_ADDRESSES, Sighting
from peertunnel.discovery.mdns_wire import Name

MAX_PEERS = 512  # a /23 full of them
MAX_TTL = 3600  # seconds; go-libp2p says 3200, rust-libp2p 360
_FLUSH = 1.0  # seconds after which news replace what the same peer said before (RFC 6762 section 10.2)
_MAX_NAMES = 16  # of one peer, over all links; rust-libp2p takes a new name for each response


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A peer on the LAN: its addresses as multiaddrs ending in /p2p/ and its id, latest news first."""

    peer_id: str
    addresses: tuple[str, ...]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    addresses: tuple[str, ...]
    tags: frozenset[str]
    heard: float
    expires: float


_Key = tuple[Hashable, Name]  # each link shows its own view of a peer


class Neighbours:
    """What was heard and still holds; times are seconds of one clock that the caller keeps."""

    def __init__(self) -> None:
        self._peers: dict[str, dict[_Key, _Entry]] = {}  # the one heard last stands last

    def __len__(self) -> int:
        """Give how many peers take up room, whether or not all still hold."""
        return len(self._peers)

    def hear(self, sighting: Sighting, link: Hashable, now: float) -> tuple[Neighbour | None, bool]:
        """Take in a sighting from a link.

        Gives the peer as it is known now, None when it has withdrawn, and whether it is new, has restarted
        (it goes by a new name then) or has new addresses.
        """
        entries = self._peers.pop(sighting.peer_id, {})
        if sighting.ttl == 0:
            rest = {key: entry for key, entry in entries.items() if key[1] != sighting.name}
            if rest:
                self._peers[sighting.peer_id] = rest
            return None, False
        before = _neighbour(sighting.peer_id, entries, now)
        self._peers[sighting.peer_id] = news = _refreshed(entries, sighting, link, now)
        if len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        after = _neighbour(sighting.peer_id, news, now)
        is_known = any(name == sighting.name for _, name in entries)
        return after, not (is_known and _addresses(after) <= _addresses(before))

    def known(self, now: float) -> Iterator[Neighbour]:
        """Give all peers that still hold, and forget the others."""
        for peer_id, entries in list(self._peers.items()):
            neighbour = _neighbour(peer_id, entries, now)
            if neighbour is None:
                del self._peers[peer_id]
            else:
                yield neighbour

    def drop_link(self, link: Hashable) -> None:
        """Forget what was heard on a link that is gone."""
        for peer_id, entries in self._peers.items():
            self._peers[peer_id] = {key: entry for key, entry in entries.items() if key[0] != link}


def _refreshed(
    entries: dict[_Key, _Entry], sighting: Sighting, link: Hashable, now: float
) -> dict[_Key, _Entry]:
    """Add the news, and let older ones from the same link run out in a second.

    Not at once: a peer with many addresses spreads them over several responses.
    """
    kept = {
        key: replace(entry, expires=min(entry.expires, now + _FLUSH))
        if key[0] == link and entry.heard < now - _FLUSH
        else entry
        for key, entry in entries.items()
        if key != (link, sighting.name) and entry.expires > now
    }
    for key in list(kept)[: max(0, len(kept) - _MAX_NAMES + 1)]:
        del kept[key]
    expires = now + min(sighting.ttl, MAX_TTL)
    return kept | {(link, sighting.name): _Entry(sighting.addresses, sighting.tags, now, expires)}


def _addresses(neighbour: Neighbour | None) -> set[str]:
    return set(neighbour.addresses) if neighbour else set()


def _neighbour(peer_id: str, entries: dict[_Key, _Entry], now: float) -> Neighbour | None:
    valid = [entry for entry in reversed(entries.values()) if entry.expires > now]
    addresses = dict.fromkeys(address for entry in valid for address in entry.addresses)
    if not addresses:
        return None
    tags = frozenset[str]().union(*(entry.tags for entry in valid))
    return Neighbour(peer_id, tuple(addresses)[:MAX_ADDRESSES], tags)
