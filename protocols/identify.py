"""Identify: what a peer tells of itself, and of how it sees us (libp2p specs, identify)."""

from dataclasses import dataclass

from peertunnel.protocols.peerid import multihash_of
from peertunnel.protocols.protobuf import decode_message, encode_message

PROTOCOL = "/ipfs/id/1.0.0"
PUSH = "/ipfs/id/push/1.0.0"  # the same unasked, when something has changed
_VERSION = b"ipfs/0.1.0"  # of the family of protocols, as everybody has it
_MAX_PROTOCOLS = 1024  # of a peer that are looked at; go-libp2p's limit
MAX_ADDRESSES = 64  # of a peer that are looked at, and of ours that are told: an envelope holds some 80


@dataclass(frozen=True, slots=True)
class Identify:
    """A peer's answer; what it left out is empty.

    agent: the program that it runs. protocols: what it speaks. addresses: multiaddrs that it listens on, as bytes.
    observed: where it sees who has asked, a multiaddr as bytes. record: its addresses, signed (see `record`).
    """

    agent: str = ""
    protocols: frozenset[str] = frozenset()
    addresses: tuple[bytes, ...] = ()
    observed: bytes = b""
    record: bytes = b""

    @classmethod
    def decode(cls, message: bytes) -> "Identify":
        """Read an answer; raises RemoteProtocolError when it is malformed."""
        fields = decode_message(message)
        return cls(
            fields.blob(6).decode(errors="replace"),
            frozenset(name.decode(errors="replace") for name in fields.blobs(3)[:_MAX_PROTOCOLS]),
            tuple(fields.blobs(2)[:MAX_ADDRESSES]),
            fields.blob(4),
            fields.blob(8),
        )

    def updated(self, news: "Identify") -> "Identify":
        """Give what holds after a push, which may leave out what has not changed."""
        return Identify(
            news.agent or self.agent,
            news.protocols or self.protocols,
            news.addresses or self.addresses,
            news.observed or self.observed,
            news.record or self.record,
        )

    def encode(self, peer_id: str) -> bytes:
        """Give our own answer. peer_id: ours, of an Ed25519 key, base58."""
        return encode_message(
            [
                (5, _VERSION),
                (6, self.agent.encode()),
                (1, multihash_of(peer_id)[2:]),  # an identity multihash is the thing itself
                *((2, address) for address in self.addresses),
                (4, self.observed),
                *((3, protocol.encode()) for protocol in sorted(self.protocols)),
                (8, self.record),
            ]
        )
