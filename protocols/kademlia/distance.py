"""How far apart keys and peers are: XOR of their SHA-256, as a number (libp2p specs, kad-dht, "Distance")."""

import hashlib

BITS = 256


def position(key: bytes) -> int:
    """Give the place of a key, or of a peer id's bytes, in the space of 256 bits."""
    return int.from_bytes(hashlib.sha256(key).digest())


def shared_bits(one: int, other: int) -> int:
    """Give how many leading bits two positions have in common, 0 to 256."""
    return BITS - (one ^ other).bit_length()
