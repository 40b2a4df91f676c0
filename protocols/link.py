"""Links: one line that names a peer, where it is, and the secret that opens the service.

    pk://PEERID[/PORT][?a=<multiaddr>&r=<relay multiaddr>…][#<secret>]

PortKey prints and reads the part before the question mark. The secret is a URI's fragment (RFC 3986
section 3.5), the part that programs never send to a server nor write to a log.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from peertunnel.protocols.address import AddressError, address_of, split_address
from peertunnel.protocols.errors import LocalProtocolError
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id

SECRET_BYTES = 16  # 128 bits: never guessed, and 22 characters in a link
_SCHEME = "pk://"
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SAFE = "/:-._~"  # may stand in a query (RFC 3986 section 3.4), and keep multiaddrs readable


class LinkError(LocalProtocolError):
    """The text is not a link."""


@dataclass(frozen=True, slots=True)
class Link:
    """A way to one peer's service; raises LinkError when a part is not valid.

    peer_id: in base58. port: the provider's port as PortKey tells it, if it does.
    addresses: multiaddrs of the peer, each ending in /p2p/ and its id.
    relays: multiaddrs of relays that the peer is reserved at, each ending in /p2p/ and the relay's id.
    secret: 16 bytes, or None for a service that asks for none; never in the repr.
    """

    peer_id: str
    port: int | None = None
    addresses: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            peer_id = parse_peer_id(self.peer_id)
            addresses = tuple(address_of(address, peer_id) for address in self.addresses)
            relays = tuple(_relay(address) for address in self.relays)
        except (PeerIdError, AddressError) as error:
            raise LinkError(f"the link is wrong: {error}") from None
        if self.port is not None and not 1 <= self.port <= 65535:
            raise LinkError("the port in a link lies between 1 and 65535")
        if self.secret is not None and len(self.secret) != SECRET_BYTES:
            raise LinkError(f"the secret in a link has {SECRET_BYTES} bytes")
        for name, value in (("peer_id", peer_id), ("addresses", addresses), ("relays", relays)):
            object.__setattr__(self, name, value)

    def format(self) -> str:
        """Write the link, secret and all: for the user's eyes only."""
        places = [address.removesuffix(f"/p2p/{self.peer_id}") for address in self.addresses]
        pairs = [f"a={quote(place, _SAFE)}" for place in places]
        pairs += [f"r={quote(relay, _SAFE)}" for relay in self.relays]
        port = f"/{self.port}" if self.port is not None else ""
        query = f"?{'&'.join(pairs)}" if pairs else ""
        secret = f"#{_encode(self.secret)}" if self.secret is not None else ""
        return f"{_SCHEME}{self.peer_id}{port}{query}{secret}"

    __str__ = format


def parse_link(text: str) -> Link:
    """Read a link, or a bare peer id, which is a link with nothing else in it.

    Parameters of the query that we don't know are left for later versions. Raises LinkError.
    """
    if text[: len(_SCHEME)].lower() != _SCHEME:
        if "/" in text or "#" in text:  # errors show a peer id, and must not show a secret
            raise LinkError("a link begins with pk:// and a peer id")
        return Link(text)
    rest, hash_mark, fragment = text[len(_SCHEME) :].partition("#")
    path, _, query = rest.partition("?")
    peer_id, _, port = path.partition("/")
    pairs = [pair.partition("=") for pair in query.split("&")]
    return Link(
        peer_id,
        _port(port) if port else None,
        tuple(_unquote(value) for key, _, value in pairs if key == "a"),
        tuple(_unquote(value) for key, _, value in pairs if key == "r"),
        _decode(fragment) if hash_mark else None,
    )


def _relay(address: str) -> str:
    place, peer_id = split_address(address)
    if peer_id is None:
        raise AddressError(f"{address!r} does not say which peer the relay is")
    return f"{place}/p2p/{peer_id}"


def _port(text: str) -> int:
    if not _PORT.fullmatch(text):
        raise LinkError("the port in a link lies between 1 and 65535")
    return int(text)


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeError:
        raise LinkError("an address in the link is not text") from None


def _encode(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def _decode(fragment: str) -> bytes:
    try:
        secret = base64.urlsafe_b64decode(fragment + "=" * (-len(fragment) % 4))
    except (binascii.Error, ValueError):
        secret = b""
    # Decoding forgives foreign characters and stray bits: only what we would write ourselves is a secret.
    if len(secret) != SECRET_BYTES or _encode(secret) != fragment:
        raise LinkError("the secret behind the # is damaged: was the link copied in full?")
    return secret
