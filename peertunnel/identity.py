"""Who we are: an Ed25519 key, kept in the form that every libp2p program reads (libp2p specs, peer-ids)."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peertunnel.errors import IdentityError, StoreError
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.store import create_private, read_private

if TYPE_CHECKING:
    from libp2p.crypto.keys import KeyPair

SEED_BYTES = 32
_SERVICE_INFO = b"peertunnel/v1/identity/"
# The protobuf's type (Ed25519) and the length of its data: the seed and the public key.
_PREFIX = b"\x08\x01\x12\x40"
# Also read: the seed alone, as py-libp2p writes it, and the public key twice, as Go once wrote it.
_PREFIX_SEED = b"\x08\x01\x12\x20"
_PREFIX_TWICE = b"\x08\x01\x12\x60"


@dataclass(frozen=True, slots=True)
class Identity:
    """An Ed25519 key and the peer id that it gives.

    seed: the private key (32 bytes), never in the repr. peer_id: in base58.
    """

    seed: bytes = field(repr=False)
    peer_id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peer_id", ed25519_peer_id(self.public_key))

    @classmethod
    def ephemeral(cls) -> "Identity":
        """Make an identity that is stored nowhere."""
        return cls(os.urandom(SEED_BYTES))

    @property
    def public_key(self) -> bytes:
        """The public key (32 bytes)."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def key_pair(self) -> "KeyPair":
        """The key as py-libp2p wants it."""
        from libp2p.crypto.ed25519 import create_new_key_pair  # slow to import, and not everybody needs it

        return create_new_key_pair(self.seed)

    def sign(self, data: bytes) -> bytes:
        """Sign (Ed25519, 64 bytes)."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(data)

    def for_service(self, label: bytes) -> "Identity":
        """Derive the identity under which this machine provides a service.

        It stays the same from start to start, differs from the consumer's on the same machine, and nobody
        can tell that two of them belong together.
        """
        return Identity(HKDF(SHA256(), SEED_BYTES, salt=None, info=_SERVICE_INFO + label).derive(self.seed))

    def encode(self) -> bytes:
        """Give the private key as libp2p's protobuf, in the form that Go and Rust write."""
        return _PREFIX + self.seed + self.public_key


def load_identity(path: Path) -> Identity:
    """Read the identity in a file, or create it there: of several programs at once, all get the same one.

    Raises IdentityError if the file is unreadable, open to other users or no Ed25519 key.
    """
    try:
        encoded = read_private(path)
        if encoded is None:
            create_private(path, Identity.ephemeral().encode())
            encoded = read_private(path)
    except StoreError as error:
        raise IdentityError(error.message, hint=error.hint or None) from error
    identity = _decode(encoded or b"")
    if identity is None:
        raise IdentityError(f"{path} does not hold an Ed25519 key as libp2p writes it.")
    return identity


def _decode(encoded: bytes) -> Identity | None:
    for prefix, copies in ((_PREFIX, 1), (_PREFIX_SEED, 0), (_PREFIX_TWICE, 2)):
        body = encoded.removeprefix(prefix)
        if encoded.startswith(prefix) and len(body) == SEED_BYTES * (1 + copies):
            identity = Identity(body[:SEED_BYTES])
            # A public half that does not fit would have us sign what nobody can verify.
            return identity if body[SEED_BYTES:] == identity.public_key * copies else None
    return None
