"""What a relay keeps in mind, sans I/O: who may be reached through it, and how many circuits run. All of it is bounded."""

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from peertunnel.protocols.circuit.messages import CircuitRefused, Limit, Status

TTL = 3600  # seconds that a reservation holds; go-libp2p's default
STRANGERS_LIMIT = Limit(seconds=120, bytes=128 * 1024)  # of a circuit; go-libp2p's and rust-libp2p's default
MAX_RESERVATIONS = (
    1024  # half of a relay's connections, so that callers find room; go's 128 are a volunteer's
)
MAX_PER_NETWORK = 64  # reservations from one network: an office behind one router; go-libp2p has 8
MAX_CIRCUITS = 1024  # in all; strangers' hold at most 128 KiB each way, so 256 MiB if nobody reads
MAX_PER_PEER = 16  # circuits of one peer, as caller and as destination together; go-libp2p's default
MAX_PER_PEER_AND_NETWORK = MAX_PER_PEER // 2  # that strangers in one network have with one peer
MAX_CIRCUITS_PER_NETWORK = 64  # of strangers that call from one network, since peer ids are free
MAX_PER_TRUSTED_PEER = 512  # of a peer without limits: a team's provider serves all of the team
MAX_UNLIMITED_PER_NETWORK = MAX_CIRCUITS // 4  # that strangers in one network have with such: a team's office
# Of all reservations, all circuits, and those of a peer without limits; the rest is for those who have none.
STRANGERS_SHARE = 3 / 4
TICK = 10.0  # seconds between looks for what has expired
_PREFIXES = {4: 32, 6: 56}  # bits of what one subscriber has; go-libp2p counts the same networks
K = TypeVar("K", str, tuple[str, str])


def network_of(ip: str) -> str:
    """Name the network that an address is in: an IPv4 address itself, or the /56 of an IPv6 address."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    return str(ipaddress.ip_network((address, _PREFIXES[address.version]), strict=False))


@dataclass(frozen=True, slots=True)
class _Reservation:
    network: str
    expires_at: float


class Book:
    """The reservations and the circuits of a relay. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._reservations: dict[str, _Reservation] = {}
        self._per_network: Counter[str] = Counter()
        self._per_peer: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()  # circuits, by the network of who called
        self._pairs: Counter[tuple[str, str]] = Counter()  # circuits, by that network and the destination
        self._circuits = 0

    @property
    def reservations(self) -> int:
        """How many reservations there are, those that have just expired included."""
        return len(self._reservations)

    @property
    def circuits(self) -> int:
        """How many circuits run, or are being opened."""
        return self._circuits

    # -- reservations ---------------------------------------------------------------------------------------------

    def reserve(self, peer_id: str, network: str, now: float, *, is_trusted: bool = False) -> None:
        """Note that a peer may be reached through us for an hour from now; one that it has is renewed.

        Args:
            peer_id: base58.
            network: where it is; see `network_of`.
            now: seconds.
            is_trusted: whether its circuits have no limits; then it may have what is kept for such.

        Raises:
            CircuitRefused: there is no room; an older reservation of the peer stays.
        """
        if not self._has_room(peer_id, network, is_trusted):
            self.tick(now)
        if not self._has_room(peer_id, network, is_trusted):
            raise CircuitRefused(Status.RESERVATION_REFUSED)
        self.release(peer_id)
        self._reservations[peer_id] = _Reservation(network, now + TTL)
        self._per_network[network] += 1

    def _has_room(self, peer_id: str, network: str, is_trusted: bool) -> bool:
        known = self._reservations.get(peer_id)
        in_all, of_network = len(self._reservations), self._per_network[network]
        if known is not None:
            in_all -= 1
            of_network -= known.network == network
        if is_trusted:
            return in_all < MAX_RESERVATIONS
        return in_all < MAX_RESERVATIONS * STRANGERS_SHARE and of_network < MAX_PER_NETWORK

    def release(self, peer_id: str) -> None:
        """Forget a peer's reservation, if it has one."""
        known = self._reservations.pop(peer_id, None)
        if known is not None:
            self._per_network[known.network] -= 1
            if not self._per_network[known.network]:
                del self._per_network[known.network]

    def is_reserved(self, peer_id: str, now: float) -> bool:
        """Return whether a peer may be reached through us."""
        known = self._reservations.get(peer_id)
        return known is not None and now < known.expires_at

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        for peer_id, known in list(self._reservations.items()):
            if known.expires_at <= now:
                self.release(peer_id)

    # -- circuits -------------------------------------------------------------------------------------------------

    def open(
        self, caller: str, destination: str, network: str, *, is_trusted: bool, is_limited: bool, now: float
    ) -> None:
        """Note a circuit that is about to be opened; `close` must follow.

        Args:
            caller: a peer id, base58.
            destination: another one's.
            network: where the caller is; see `network_of`.
            is_trusted: whether the caller is one whose circuits have no limits.
            is_limited: whether this circuit has limits: neither of the two is such a one.
            now: seconds.

        Raises:
            CircuitRefused: with what answers the caller.
        """
        if caller == destination:
            raise CircuitRefused(Status.PERMISSION_DENIED)
        if not self.is_reserved(destination, now):
            raise CircuitRefused(Status.NO_RESERVATION)
        of_peer = max(self._per_peer[caller], self._per_peer[destination])
        if is_trusted:
            has_room = self._circuits < MAX_CIRCUITS and of_peer < MAX_PER_TRUSTED_PEER
        else:
            has_room = self._has_room_for_stranger(of_peer, destination, network, is_limited)
        if not has_room:
            raise CircuitRefused(Status.RESOURCE_LIMIT_EXCEEDED)
        self._count(caller, destination, network, 1)

    def _has_room_for_stranger(self, of_peer: int, destination: str, network: str, is_limited: bool) -> bool:
        of_network, is_full = self._calls[network], self._circuits >= MAX_CIRCUITS * STRANGERS_SHARE
        if not is_limited:
            is_full = is_full or of_peer >= MAX_PER_TRUSTED_PEER * STRANGERS_SHARE
            return not is_full and of_network < MAX_UNLIMITED_PER_NETWORK
        is_full = is_full or of_peer >= MAX_PER_PEER or of_network >= MAX_CIRCUITS_PER_NETWORK
        return not is_full and self._pairs[network, destination] < MAX_PER_PEER_AND_NETWORK

    def close(self, caller: str, destination: str, network: str) -> None:
        """Note that a circuit has ended, or could not be opened."""
        self._count(caller, destination, network, -1)

    def _count(self, caller: str, destination: str, network: str, change: int) -> None:
        self._circuits += change
        for peer_id in (caller, destination):
            _add(self._per_peer, peer_id, change)
        _add(self._calls, network, change)
        _add(self._pairs, (network, destination), change)


def _add(counter: Counter[K], key: K, change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]
