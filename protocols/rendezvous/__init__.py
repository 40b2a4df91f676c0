"""The rendezvous protocol, sans I/O: peers register where they are, and others discover them (libp2p specs)."""

from peertunnel.protocols.rendezvous.book import MAX_PER_PEER, MAX_REGISTRATIONS, Book
from peertunnel.protocols.rendezvous.messages import (
    DEFAULT_TTL,
    MAX_COOKIE,
    MAX_NAMESPACE,
    MAX_TTL,
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

PROTOCOL = "/rendezvous/1.0.0"

__all__ = [
    "DEFAULT_TTL",
    "MAX_COOKIE",
    "MAX_NAMESPACE",
    "MAX_PER_PEER",
    "MAX_REGISTRATIONS",
    "MAX_TTL",
    "PROTOCOL",
    "Book",
    "Discover",
    "Discovered",
    "Message",
    "Register",
    "Registered",
    "Status",
    "Unregister",
    "decode",
    "encode",
]
