"""What discovery needs of the host: to ask other peers something, to answer them, and to know who they are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class RequestError(Exception):
    """The peer was not reached in time, did not answer, or not in a form that we know."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: peer_id in base58, the multiaddr that it called from, without its peer id, and its or its relay's network."""

    peer_id: str
    address: str
    place: str


@dataclass(frozen=True, slots=True)
class Identified:
    """What a peer tells of itself: its protocols, and the multiaddrs it listens on, each ending in /p2p/ and its id."""

    protocols: frozenset[str]
    addresses: tuple[str, ...]


Answer = Callable[[Caller, bytes], bytes | None]


class Peers(Protocol):
    """The host, as seen from below. Addresses are multiaddrs, with or without /p2p/ and the peer id."""

    @property
    def peer_id(self) -> str:
        """Our own peer id, base58."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now, each ending in /p2p/ and our id."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign with the key of our peer id (Ed25519, 64 bytes)."""
        ...

    def standing(self, peer_id: str) -> frozenset[object]:
        """Return the connections to a peer that stand, for comparison with those of another time."""
        ...

    async def request(
        self,
        peer_id: str,
        addresses: Iterable[str],
        protocol: str,
        message: bytes,
        *,
        limit: int,
        within: float,
    ) -> bytes:
        """Send a message to a peer and return its answer.

        The connection that stands is used, or else one is opened, and closed again once nobody has used it for a while.

        Args:
            protocol: libp2p protocol id; messages travel on it behind their lengths.
            limit: bytes that the answer may have.
            within: seconds for it all.

        Raises:
            RequestError: there was no answer.
        """
        ...

    async def tell(
        self, peer_id: str, addresses: Iterable[str], protocol: str, message: bytes, *, within: float
    ) -> None:
        """Send a message that has no answer; raises RequestError. See `request`."""
        ...

    async def identify(self, peer_id: str, addresses: Iterable[str], *, within: float) -> Identified:
        """Ask a peer what it is; raises RequestError. See `request`."""
        ...

    def answer(self, protocol: str, answer: Answer, *, limit: int) -> None:
        """Answer requests of a protocol from now on.

        Args:
            answer: gives the answer, None for a message that has none; RemoteProtocolError drops the stream.
            limit: bytes that a request may have.
        """
        ...

    def stop_answering(self, protocol: str) -> None:
        """Refuse new requests of a protocol."""
        ...
