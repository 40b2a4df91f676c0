"""What a rendezvous point knows: who has registered where, and until when. All of it is bounded.

Registrations get numbers that only grow, and a cookie is the last number that an answer told: the question with that
cookie is answered with what has come later. So cookies cost no memory, and what expires makes none of them wrong.

When all the room is taken, one of the network that has most makes room, as with the DHT's records: peer ids are free, and
networks are not.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import islice

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.record import MAX_ENVELOPE, unseal
from peertunnel.protocols.rendezvous.messages import (
    DEFAULT_TTL,
    MAX_NAMESPACE,
    MAX_TTL,
    Discover,
    Discovered,
    Message,
    Register,
    Registered,
    Status,
    Unregister,
)

MAX_REGISTRATIONS = 10_000  # in all; rust-libp2p's default. At 8 KiB each they take 80 MiB at the very most
MAX_PER_PEER = 100  # between rust-libp2p's 32 and the 1,000 that the specification recommends
MAX_PER_NETWORK = 2000  # of one network, a fifth of all
MAX_ANSWERED = 1000  # registrations in an answer; libp2p specs, rendezvous, "Recommendations"
MAX_ANSWER = 256 * 1024  # bytes of envelopes and namespaces in an answer; a fourth of what rust-libp2p reads
TICK = 60.0  # seconds between looks for what has expired; who asks is never told of it anyway
RUN_BYTES = 3  # of a cookie: they tell this run of the point from the one before

_NUMBER_BYTES = 5  # of a cookie: a million registrations a second for twelve days


@dataclass(slots=True)
class _Entry:
    register: Register
    sequence: int
    network: str | None
    number: int
    expires_at: float


class Book:
    """The registrations of a rendezvous point.

    Args:
        run: three random bytes; cookies of another run are refused, so that their owners begin anew.
    """

    def __init__(self, run: bytes) -> None:
        if len(run) != RUN_BYTES:
            raise LocalProtocolError(f"a run has {RUN_BYTES} bytes")
        self._run = run
        self._spaces: dict[str, dict[str, _Entry]] = {}  # by namespace, then peer id; the newest come last
        self._per_peer: Counter[str] = Counter()
        # By network, namespaces and peer ids, the oldest first.
        self._networks: dict[str | None, dict[tuple[str, str], None]] = {}
        self._size = 0
        self._number = 0

    @property
    def size(self) -> int:
        """How many registrations there are, those that have just expired included."""
        return self._size

    @property
    def namespaces(self) -> int:
        """In how many namespaces they are."""
        return len(self._spaces)

    @property
    def peers(self) -> int:
        """Of how many peers they are."""
        return len(self._per_peer)

    def answer(
        self, peer_id: str, message: Message, now: float, network: str | None = None
    ) -> Registered | Discovered | None:
        """Do what a peer asks for.

        Args:
            peer_id: who asks, base58, as its connection has proven.
            message: what it asks.
            now: a clock that never goes back, seconds.
            network: the one that it asks from; None, as on a LAN, has no share of its own.

        Raises:
            RemoteProtocolError: it is not for a rendezvous point.
        """
        match message:
            case Register():
                return self._register(peer_id, message, now, network)
            case Unregister(namespace):
                self._remove(namespace, peer_id)
                return None
            case Discover():
                return self._discover(message, now)
        raise RemoteProtocolError("an answer came without a question")

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        for namespace, space in list(self._spaces.items()):
            for peer_id in [peer_id for peer_id, entry in space.items() if entry.expires_at <= now]:
                self._remove(namespace, peer_id)

    def _register(self, peer_id: str, message: Register, now: float, network: str | None) -> Registered:
        if not 0 < len(message.namespace.encode()) <= MAX_NAMESPACE:
            return Registered(Status.INVALID_NAMESPACE, reason=f"1 to {MAX_NAMESPACE} bytes")
        ttl = DEFAULT_TTL if message.ttl is None else message.ttl
        if not 0 < ttl <= MAX_TTL:
            return Registered(Status.INVALID_TTL, reason=f"1 to {MAX_TTL} seconds")
        space = self._spaces.get(message.namespace, {})
        known = space.get(peer_id)
        if known is not None and known.register.envelope == message.envelope:
            # The same again: it lasts longer, and who knows it already isn't told anew.
            known.expires_at = now + ttl
            return Registered(Status.OK, ttl)
        try:
            record = unseal(message.envelope)
        except RemoteProtocolError as error:
            return Registered(Status.INVALID_SIGNED_PEER_RECORD, reason=str(error))
        if record.peer_id != peer_id:
            return Registered(Status.NOT_AUTHORIZED, reason="peers register themselves only")
        if known is not None and record.sequence < known.sequence:
            return Registered(Status.INVALID_SIGNED_PEER_RECORD, reason="a newer record is known")
        if known is None and not self._has_room(peer_id, network):
            self.tick(now)
        if known is None and not self._has_room(peer_id, network) and not self._make_room(peer_id, network):
            return Registered(Status.UNAVAILABLE, reason="too many registrations")
        self._remove(message.namespace, peer_id)
        self._number += 1
        entry = _Entry(message, record.sequence, network, self._number, now + ttl)
        self._spaces.setdefault(message.namespace, {})[peer_id] = entry
        self._networks.setdefault(network, {})[message.namespace, peer_id] = None
        self._size += 1
        self._per_peer[peer_id] += 1
        return Registered(Status.OK, ttl)

    def _has_room(self, peer_id: str, network: str | None) -> bool:
        return self._size < MAX_REGISTRATIONS and self._has_share(peer_id, network)

    def _has_share(self, peer_id: str, network: str | None) -> bool:
        """Return whether a peer, and its network, may have one more of all that there are."""
        is_crowded = network is not None and len(self._networks.get(network, ())) >= MAX_PER_NETWORK
        return self._per_peer[peer_id] < MAX_PER_PEER and not is_crowded

    def _make_room(self, peer_id: str, network: str | None) -> bool:
        """Forget one of the network that has most, in the middle of their age, where the newcomer's has fewer even then."""
        if not self._has_share(peer_id, network):
            return False
        crowd = max(self._networks.values(), key=len)
        if len(crowd) <= len(self._networks.get(network, ())) + 1:
            return False
        self._remove(*next(islice(crowd, len(crowd) // 2, None)))
        return True

    def _remove(self, namespace: str, peer_id: str) -> None:
        space = self._spaces.get(namespace, {})
        entry = space.pop(peer_id, None)
        if entry is None:
            return
        if not space:
            del self._spaces[namespace]
        self._size -= 1
        self._per_peer[peer_id] -= 1
        if not self._per_peer[peer_id]:
            del self._per_peer[peer_id]
        del self._networks[entry.network][namespace, peer_id]
        if not self._networks[entry.network]:
            del self._networks[entry.network]

    def _discover(self, message: Discover, now: float) -> Discovered:
        if message.namespace is None:
            # The specification lets anybody list everybody; we tell nobody which services there are.
            return Discovered(Status.NOT_AUTHORIZED, reason="name a namespace")
        if len(message.namespace.encode()) > MAX_NAMESPACE:
            return Discovered(Status.INVALID_NAMESPACE, reason=f"1 to {MAX_NAMESPACE} bytes")
        number = self._number_in(message.cookie, message.namespace)
        if number is None:
            return Discovered(Status.INVALID_COOKIE)
        found: list[Register] = []
        room = MAX_ANSWER
        for entry in self._later(message.namespace, number):
            if entry.expires_at <= now:
                continue
            room -= len(entry.register.envelope) + len(entry.register.namespace.encode())
            if len(found) >= min(message.limit or MAX_ANSWERED, MAX_ANSWERED) or room < 0:
                break
            ttl = max(1, int(entry.expires_at - now))
            found.append(Register(message.namespace, entry.register.envelope, ttl))
            number = entry.number
        return Discovered(Status.OK, tuple(found), self._cookie(number, message.namespace))

    def _later(self, namespace: str, number: int) -> list[_Entry]:
        """Give the entries of a namespace behind a number, the oldest first."""
        later: list[_Entry] = []
        for entry in reversed(self._spaces.get(namespace, {}).values()):
            if entry.number <= number:
                break
            later.append(entry)
        later.reverse()
        return later

    def _cookie(self, number: int, namespace: str) -> bytes:
        """Write a cookie: eight bytes and the namespace, the only form that rust-libp2p's client reads."""
        return self._run + number.to_bytes(_NUMBER_BYTES) + namespace.encode()

    def _number_in(self, cookie: bytes, namespace: str) -> int | None:
        """Read a cookie: the number in it, None when it is not one of ours for this namespace."""
        if not cookie:
            return 0
        number = int.from_bytes(cookie[RUN_BYTES : RUN_BYTES + _NUMBER_BYTES])
        return number if number <= self._number and cookie == self._cookie(number, namespace) else None


assert MAX_ENVELOPE + MAX_NAMESPACE <= MAX_ANSWER, "an answer has room for any registration"
