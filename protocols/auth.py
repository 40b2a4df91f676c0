"""`/peertunnel/auth/1.0.0`: two peers prove to each other that they know a service's secret, and tell nobody else anything.

SPAKE2 (RFC 9382's construction, over Ed25519 as the spake2 package has it) with key confirmation both ways. Whoever opens
the stream speaks first, and may be the consumer or the provider; every message is a protobuf behind its length:

    opener     hello    { version, element }
    responder  reply    { element, confirmation }
    opener     confirm  { confirmation }
    provider   accepted { 1 }                     once it has decided to let the consumer in

Both peer ids as the connection has authenticated them, the roles, who opened, the version and the first two messages go
into the key, so that an exchange can't be replayed, reflected, passed on by a third peer or mixed with another one.
The password is stretched before (`topic.derive_root`): whoever takes part in one exchange can try one guess.
"""

import hashlib
import hmac
from collections.abc import Callable
from enum import Enum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError
from spake2.ed25519_basic import NotOnCurve

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message

PROTOCOL = "/peertunnel/auth/1.0.0"
VERSION = 1
MAX_MESSAGE = 128  # bytes; the longest, the reply, has 69
PASSWORD_BYTES = 32
_ELEMENT_BYTES = 33  # the side and a compressed point
_CONFIRMATION_BYTES = 32  # HMAC-SHA256
_ACCEPTED = encode_message([(1, 1)])

Entropy = Callable[[int], bytes]


class ProofFailed(RemoteProtocolError):
    """The peer does not know the secret, or somebody stands in between."""


class Role(Enum):
    """What an end of a tunnel is: the one that listens locally, or the one that dials the target."""

    CONSUMER = b"consumer"
    PROVIDER = b"provider"

    @property
    def other(self) -> "Role":
        """The role of the other end."""
        return Role.PROVIDER if self is Role.CONSUMER else Role.CONSUMER


def password_of(root: bytes) -> bytes:
    """Derive the password (32 bytes) that a service's peers prove, from its root secret."""
    return HKDF(SHA256(), PASSWORD_BYTES, salt=None, info=b"peertunnel/v1/auth").derive(root)


class _Party:
    """One end of an exchange.

    Args:
        role: what we are.
        password: 32 bytes; see `password_of`.
        ours: our peer id, base58.
        theirs: the other's, as the connection has authenticated it.
        entropy: gives that many random bytes.
    """

    _is_opener: bool

    def __init__(self, role: Role, password: bytes, ours: str, theirs: str, entropy: Entropy) -> None:
        consumer, provider = (ours, theirs) if role is Role.CONSUMER else (theirs, ours)
        opener = role if self._is_opener else role.other
        names = [PROTOCOL, consumer, provider, opener.value.decode()]
        self._context = b"".join(len(name).to_bytes(2, "big") + name.encode() for name in names)
        kind = SPAKE2_A if role is Role.CONSUMER else SPAKE2_B
        self._spake = kind(password, idA=consumer.encode(), idB=provider.encode(), entropy_f=entropy)
        self._element: bytes = self._spake.start()

    def _confirmations(self, hello: bytes, element: bytes, theirs: bytes) -> tuple[bytes, bytes]:
        """Agree on the key, and return the opener's and the responder's confirmation.

        hello: the first message. element: the responder's. theirs: the other end's element, of either.
        """
        try:
            key = self._spake.finish(theirs)
        except (SPAKEError, NotOnCurve, ValueError) as error:
            raise ProofFailed(f"the element is not a fitting one: {error}") from None
        transcript = hashlib.sha256(self._context + hello + element).digest()
        keys = HKDF(SHA256(), 64, salt=transcript, info=b"confirmation").derive(key)
        opener, responder = (hmac.digest(half, transcript, "sha256") for half in (keys[:32], keys[32:]))
        return opener, responder


class Opener(_Party):
    """The end that opened the stream: `hello` goes out, `receive` takes the reply and gives the last word."""

    _is_opener = True

    def hello(self) -> bytes:
        """Return the first message."""
        return encode_message([(1, VERSION), (2, self._element)])

    def receive(self, reply: bytes) -> bytes:
        """Take the reply and return our confirmation: the responder has proven itself; raises ProofFailed."""
        fields = decode_message(reply)
        element, confirmation = _sized(fields.blob(1), _ELEMENT_BYTES), fields.blob(2)
        opener, responder = self._confirmations(self.hello(), element, element)
        if not hmac.compare_digest(responder, confirmation):
            raise ProofFailed("the peer does not know the secret")
        return encode_message([(1, opener)])


class Responder(_Party):
    """The end that took the stream: `receive` takes the hello, `confirm` the last word."""

    _is_opener = False
    _expected: bytes | None = None

    def receive(self, hello: bytes) -> bytes:
        """Take the first message and return the reply; raises RemoteProtocolError."""
        fields = decode_message(hello)
        if fields.integer(1) != VERSION:
            raise ProofFailed(f"version {fields.integer(1)} is not ours")
        element = _sized(fields.blob(2), _ELEMENT_BYTES)
        self._expected, responder = self._confirmations(hello, self._element, element)
        return encode_message([(1, self._element), (2, responder)])

    def confirm(self, message: bytes) -> None:
        """Take the opener's confirmation: it has proven itself if this returns; raises ProofFailed."""
        confirmation = decode_message(message).blob(1)
        if self._expected is None or not hmac.compare_digest(
            self._expected, _sized(confirmation, _CONFIRMATION_BYTES)
        ):
            raise ProofFailed("the peer does not know the secret")


def accepted() -> bytes:
    """Return the provider's last message: the consumer may open tunnels."""
    return _ACCEPTED


def check_accepted(message: bytes) -> None:
    """Take the provider's last message; raises RemoteProtocolError for any other."""
    if message != _ACCEPTED:
        raise ProofFailed("the provider did not accept us")


def _sized(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ProofFailed(f"a field has {len(data)} bytes instead of {size}")
    return data
