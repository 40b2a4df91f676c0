"""A rendezvous point as its clients see it: one question, one answer, and everything in the answer checked."""

from collections.abc import Iterable, Iterator

from peertunnel.multiaddrs import address_texts
from peertunnel.peers import Peers, RequestError
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.record import Form, PeerRecord, seal, unseal
from peertunnel.protocols.rendezvous import (
    DEFAULT_TTL,
    MAX_COOKIE,
    PROTOCOL,
    Discover,
    Discovered,
    Message,
    Register,
    Registered,
    Status,
    Unregister,
    decode,
    encode,
)

PAGE = 100  # registrations asked for at a time; with the longest envelopes they fit into an answer
MAX_ANSWER = 1024 * 1024  # bytes; as rust-libp2p
MAX_ADDRESSES = 32  # of one peer that we pass on; go-libp2p and rust-libp2p rarely tell more than 10
WITHIN = 5.0  # seconds for a question, reaching the point included
_MAX_ADDRESS = 1024  # bytes; as protocols.address has it for text


class Refusal(Exception):
    """The point answered, and said no."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(f"{status.name} {reason}".rstrip())
        self.status = status


class Point:
    """One rendezvous point.

    Args:
        peers: the way there.
        peer_id: the point's, base58.
        addresses: its multiaddrs.
    """

    def __init__(self, peers: Peers, peer_id: str, addresses: Iterable[str]) -> None:
        self.peer_id = peer_id
        self.addresses = tuple(addresses)
        self._peers = peers
        self._forms = list(Form)  # the one that it took last comes first

    @property
    def connections(self) -> frozenset[object]:
        """Those to it that stand."""
        return self._peers.standing(self.peer_id)

    async def register(self, namespace: str, record: PeerRecord) -> int:
        """Register our record, in the form that the point understands, and return how many seconds that lasts.

        Raises:
            RequestError: the point is away, or answers nonsense.
            Refusal: it doesn't want the record.
        """
        for form in list(self._forms):
            is_last = form is self._forms[-1]
            message = Register(namespace, seal(record, self._peers.sign, form), DEFAULT_TTL)
            try:
                answer = await self._ask(message)
            except RequestError:
                # rust-libp2p resets the stream when it can't read an envelope.
                if is_last or not self.connections:
                    raise
                continue
            if not isinstance(answer, Registered):
                raise RequestError(f"{self.peer_id} answered something else")
            if answer.status is Status.OK:
                self._forms.sort(key=lambda known: known is not form)
                return answer.ttl
            if is_last or answer.status is not Status.INVALID_SIGNED_PEER_RECORD:
                raise Refusal(answer.status, answer.reason)
        raise AssertionError("the last form has returned or raised")

    async def unregister(self, namespace: str) -> None:
        """Withdraw our record; raises RequestError."""
        await self._peers.tell(
            self.peer_id, self.addresses, PROTOCOL, encode(Unregister(namespace)), within=WITHIN
        )

    async def discover(
        self, namespace: str, cookie: bytes, limit: int = PAGE
    ) -> tuple[list[PeerRecord], bytes]:
        """Return records that have come since the cookie was given out, each proven, and the next cookie.

        Raises:
            RequestError: the point is away, or answers nonsense.
            Refusal: it doesn't like the question; with INVALID_COOKIE it has begun anew, so we do too.
        """
        answer = await self._ask(Discover(namespace, limit, cookie))
        if not isinstance(answer, Discovered):
            raise RequestError(f"{self.peer_id} answered something else")
        if answer.status is not Status.OK:
            raise Refusal(answer.status, answer.reason)
        if len(answer.cookie) > MAX_COOKIE:
            raise RequestError(f"{self.peer_id} gave out a cookie of {len(answer.cookie)} bytes")
        found = [item for item in answer.registrations[:limit] if item.namespace in (namespace, "")]
        return list(_proven(found)), answer.cookie

    async def _ask(self, message: Message) -> Message:
        data = encode(message)
        answer = await self._peers.request(
            self.peer_id, self.addresses, PROTOCOL, data, limit=MAX_ANSWER, within=WITHIN
        )
        try:
            return decode(answer)
        except RemoteProtocolError as error:
            raise RequestError(f"{self.peer_id} answered nonsense: {error}") from error


def addresses_of(record: PeerRecord) -> tuple[str, ...]:
    """Give a record's addresses as text, each ending in /p2p/ and the peer id, but those that make no sense."""
    return address_texts(record.addresses[:MAX_ADDRESSES], record.peer_id)


def _proven(registrations: Iterable[Register]) -> Iterator[PeerRecord]:
    for registration in registrations:
        try:
            yield unseal(registration.envelope)
        except RemoteProtocolError:
            continue
