"""SSDP (UPnP Device Architecture 2.0, section 1.3): who on this network is an internet gateway?"""

from dataclasses import dataclass

from peertunnel.protocols.errors import RemoteProtocolError

GROUP, PORT = "239.255.255.250", 1900
MAX_MESSAGE = 4096  # bytes; real answers have 300 to 600
MAX_LOCATION = 512  # characters
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",  # those of version 2 must answer to this as well
    "urn:schemas-upnp-org:service:WANIPConnection:1",  # the only one that some routers answer to
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
_WAIT = 1  # seconds within which they answer (MX)


@dataclass(frozen=True, slots=True)
class Found:
    """A device has answered. target: what it says it is. location: the URL of its description, not yet trusted."""

    target: str
    location: str


def encode_search(target: str, host: str = GROUP) -> bytes:
    """Search for devices or services. host: where this is sent, the group or one device."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{PORT}",
        'MAN: "ssdp:discover"',
        f"MX: {_WAIT}",
        f"ST: {target}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def decode(data: bytes) -> Found:
    """Read an answer to a search; raises RemoteProtocolError."""
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError("an SSDP answer is too long")
    first, *lines = data.decode("latin-1").split("\r\n")
    if first.split()[:2] not in (["HTTP/1.1", "200"], ["HTTP/1.0", "200"]):
        raise RemoteProtocolError("this is no SSDP answer")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    location = headers.get("location", "")
    if not 0 < len(location) <= MAX_LOCATION:
        raise RemoteProtocolError("an SSDP answer has no location")
    return Found(headers.get("st", ""), location)
