"""From what two people agreed on to where their programs look for each other.

A tunnel id is a password, so it is stretched before anything is derived from it: whoever sees a topic on
the network pays for each guess. The topic changes every day, so nobody can watch a service by its topic.
"""

import base64
import functools
import hashlib
import unicodedata

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peertunnel.protocols.errors import LocalProtocolError

ROOT_BYTES = 32
TOPIC_BYTES = 32
DAY = 86400  # seconds
PROVIDERS = b"topic"  # providers announce themselves under this label
SEEKERS = b"seekers"  # and consumers under this one while they look, for providers that can reach them
_ID_SALT = b"peertunnel/v1/id"
_ID_MEMORY = 64 * 1024  # KiB; RFC 9106 section 4, second recommended option: 64 MiB, three passes
_ID_PASSES = 3
_ID_LANES = 1  # both ends may be small machines
_GO_PREFIX = b"/peertunnel/1.0.0/"
_CID_RAW_SHA256 = b"\x01\x55"  # CIDv1, multicodec raw
_SHA256_MULTIHASH = b"\x12\x20"


class TunnelIdError(LocalProtocolError):
    """The text can't be the id of a tunnel."""


@functools.lru_cache(maxsize=8)
def derive_root(tunnel_id: str) -> bytes:
    """Stretch a tunnel id into its root secret (32 bytes): Argon2id over the NFC form, 64 MiB, three passes.

    Takes a tenth of a second or more and 64 MiB. Raises TunnelIdError for an id that is empty or not text.
    """
    password = _bytes_of(unicodedata.normalize("NFC", tunnel_id))
    kdf = Argon2id(
        salt=_ID_SALT, length=ROOT_BYTES, iterations=_ID_PASSES, lanes=_ID_LANES, memory_cost=_ID_MEMORY
    )
    return kdf.derive(password)


def root_of_secret(secret: bytes) -> bytes:
    """Derive the root secret (32 bytes) from a link's random secret, which needs no stretching."""
    return HKDF(SHA256(), ROOT_BYTES, salt=None, info=b"peertunnel/v1/link").derive(secret)


def topic(root: bytes, day: int, label: bytes = PROVIDERS) -> bytes:
    """Derive a day's topic (32 bytes) from a root secret.

    day: the unix time in seconds, divided by 86400. label: whether providers are found there, or seekers.
    """
    # A machine without a clock starts in 1970, the day after -1.
    info = label + day.to_bytes(8, "big", signed=True)
    return HKDF(SHA256(), TOPIC_BYTES, salt=None, info=info).derive(root)


def topics_to_publish(root: bytes, now: float, label: bytes = PROVIDERS) -> tuple[bytes, bytes]:
    """Give today's and tomorrow's topic, for a clock that is up to a day behind ours; now is the unix time."""
    today = int(now // DAY)
    return topic(root, today, label), topic(root, today + 1, label)


def topics_to_search(root: bytes, now: float, label: bytes = PROVIDERS) -> tuple[bytes, bytes, bytes]:
    """Give yesterday's, today's and tomorrow's topic; now is the unix time in seconds."""
    today = int(now // DAY)
    return topic(root, today - 1, label), topic(root, today, label), topic(root, today + 1, label)


def go_peertunnel_topic(tunnel_id: str) -> bytes:
    """Give the topic under which the Go PeerTunnel announces an id, in clear: for public services only.

    Raises TunnelIdError for an id that is empty or not text.
    """
    return _GO_PREFIX + _bytes_of(tunnel_id)


def dht_key(topic: bytes) -> bytes:
    """Give the key that go-libp2p's routing discovery announces a topic under: its sha2-256 multihash."""
    return _SHA256_MULTIHASH + hashlib.sha256(topic).digest()


def cid(topic: bytes) -> str:
    """Give the DHT key of a topic as text: a CIDv1 (raw, sha2-256) in base32."""
    return "b" + base64.b32encode(_CID_RAW_SHA256 + dht_key(topic)).decode().lower().rstrip("=")


def _bytes_of(tunnel_id: str) -> bytes:
    try:
        encoded = tunnel_id.encode()
    except UnicodeEncodeError:
        raise TunnelIdError("a tunnel id is text in UTF-8") from None
    if not encoded:
        raise TunnelIdError("a tunnel id can't be empty")
    return encoded
