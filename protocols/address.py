"""Multiaddrs as text: checked, and split into a place and the peer id at the end (multiformats/multiaddr).

Only the text matters here: transports decide what they can dial.
"""

import ipaddress
import re
from collections.abc import Callable

from peertunnel.protocols.errors import LocalProtocolError
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id

MAX_ADDRESS = (
    1024  # characters; a circuit address over a relay's WebTransport with two certhashes has about 350
)
_NAME = re.compile(r"[\w.-]{1,253}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_MULTIBASE = re.compile(r"[A-Za-z0-9_-]{2,128}")


class AddressError(LocalProtocolError):
    """The text is not a multiaddr that we know how to read."""


def split_address(text: str) -> tuple[str, str | None]:
    """Read a multiaddr: the place, without a final /p2p/ID, and that ID in base58 (None when there is none).

    Raises AddressError, also for an address with no place in it.
    """
    if not text.startswith("/") or len(text) > MAX_ADDRESS:
        raise AddressError(
            f"{text[:MAX_ADDRESS]!r} is not a multiaddr: one looks like /ip4/192.0.2.1/tcp/4001"
        )
    if not (parts := _parts(text)):
        raise AddressError(f"{text!r} names no place")
    last_name, last_value = parts[-1]
    peer_id = last_value if last_name == "p2p" else None
    place = "".join(
        f"/{name}/{value}" if value else f"/{name}" for name, value in parts[: -1 if peer_id else None]
    )
    if not place:
        raise AddressError(f"{text!r} names a peer but no place")
    return place, peer_id


def address_of(text: str, peer_id: str) -> str:
    """Read a multiaddr of this peer (base58) and give it with /p2p/ID at its end.

    Raises AddressError, also when the address names another peer.
    """
    place, named = split_address(text)
    if named not in (None, peer_id):
        raise AddressError(f"{text!r} belongs to another peer than {peer_id}")
    address = f"{place}/p2p/{peer_id}"
    if len(address) > MAX_ADDRESS:
        raise AddressError(f"{text!r} is too long for a multiaddr")
    return address


def is_for_listening(place: str) -> bool:
    """Return whether peers can be listened for at a place: an IP address, with TCP or with QUIC over UDP."""
    names = [name for name, _ in _parts(place)]
    return names[:1] in (["ip4"], ["ip6"]) and names[1:] in (["tcp"], ["udp", "quic-v1"])


def _parts(text: str) -> list[tuple[str, str]]:
    words = text.removesuffix("/").split("/")[1:]
    parts: list[tuple[str, str]] = []
    while words:
        name = words.pop(0)
        if name not in _VALUES:
            raise AddressError(f"{text!r} is not a multiaddr that we know: {name!r} is no protocol's name")
        check = _VALUES[name]
        if check is None:
            parts.append((name, ""))
            continue
        try:
            parts.append(("p2p" if name == "ipfs" else name, check(words.pop(0) if words else "")))
        except (ValueError, PeerIdError):
            raise AddressError(f"{text!r} is not a multiaddr: the value of {name} is wrong") from None
    return parts


def _ip4(value: str) -> str:
    return str(ipaddress.IPv4Address(value))


def _ip6(value: str) -> str:
    if "%" in value:
        raise ValueError("the zone stands in an ip6zone part")
    return str(ipaddress.IPv6Address(value))


def _port(value: str) -> str:
    if not _NUMBER.fullmatch(value) or int(value) > 65535:
        raise ValueError("a port lies between 0 and 65535")
    return value


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} does not match")
        return value

    return check


_name, _multibase = _matching(_NAME), _matching(_MULTIBASE)

_VALUES: dict[str, Callable[[str], str] | None] = {
    "certhash": _multibase,
    "dns": _name,
    "dns4": _name,
    "dns6": _name,
    "dnsaddr": _name,
    "http": None,
    "https": None,
    "ip4": _ip4,
    "ip6": _ip6,
    "ip6zone": _name,
    "ipfs": parse_peer_id,
    "noise": None,
    "p2p": parse_peer_id,
    "p2p-circuit": None,
    "quic": None,
    "quic-v1": None,
    "sni": _name,
    "tcp": _port,
    "tls": None,
    "udp": _port,
    "webrtc": None,
    "webrtc-direct": None,
    "webtransport": None,
    "ws": None,
    "wss": None,
}
