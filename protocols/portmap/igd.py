"""UPnP internet gateways: their description, and the calls that map ports, in XML over HTTP.

UPnP Forum: InternetGatewayDevice:1 and :2, WANIPConnection:1 and :2, WANPPPConnection:1, Device Architecture 2.0.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import Transport
from peertunnel.protocols.portmap.xml import Element, read_xml

MAX_URL = 1024  # characters
MAX_SERVICES = 4  # of a router; one for each line to the internet
_KINDS = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
_VISIBLE = re.compile(r"[!-~]+")
_NUMBER = re.compile(r"[0-9]{1,5}")
_MAX_REASON = 100  # characters of a fault that are worth keeping
_ENVELOPE = (
    '<?xml version="1.0"?>\r\n'
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
    ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
    '<u:{action} xmlns:u="{kind}">{arguments}</u:{action}>'
    "</s:Body></s:Envelope>\r\n"
)


class Fault(IntEnum):
    """The errors that we answer with another try (WANIPConnection:1 section 2.4.16, :2 section 2.5.16)."""

    CONFLICT_IN_MAPPING_ENTRY = 718
    ONLY_PERMANENT_LEASES_SUPPORTED = 725
    CONFLICT_WITH_OTHER_MECHANISMS = 729


@dataclass(frozen=True, slots=True)
class Service:
    """What maps ports: its type, and the URL that takes calls."""

    kind: str
    url: str

    @property
    def chooses_ports(self) -> bool:
        """AddAnyPortMapping came with version 2."""
        return self.kind == _KINDS[0]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an action, ready to be posted: the value of the SOAPACTION header, and the body."""

    action: str
    header: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Returned:
    """An action has ended well; values by their names."""

    values: Mapping[str, str]

    @property
    def external_address(self) -> ipaddress.IPv4Address | None:
        """What GetExternalIPAddress gives; None while there is no connection. Raises RemoteProtocolError."""
        text = self.values.get("NewExternalIPAddress", "")
        try:
            address = ipaddress.IPv4Address(text or 0)
        except ValueError:
            raise RemoteProtocolError("a router's external address is none") from None
        return None if address.is_unspecified else address

    @property
    def reserved_port(self) -> int:
        """What AddAnyPortMapping gives; raises RemoteProtocolError."""
        text = self.values.get("NewReservedPort", "")
        if not _NUMBER.fullmatch(text) or not 0 < int(text) < 2**16:
            raise RemoteProtocolError("a router has reserved no port")
        return int(text)


@dataclass(frozen=True, slots=True)
class Failed:
    """An action has failed. code: a Fault or another number. reason: for people."""

    code: int
    reason: str


Answer: TypeAlias = Returned | Failed


def read_description(data: bytes, location: str) -> tuple[Service, ...]:
    """Find the services that map ports in the description that was at a URL, the best first.

    Only those are given that are called on the same host; raises RemoteProtocolError.
    """
    root = read_xml(data)
    base = root.value("URLBase") or location
    found = [
        Service(kind, url)
        for service in root.all("service")
        if (kind := service.value("serviceType")) in _KINDS
        and (url := _resolve(base, service.value("controlURL"), location))
    ]
    return tuple(sorted(found, key=lambda service: _KINDS.index(service.kind)))[:MAX_SERVICES]


def host_of(url: str) -> ipaddress.IPv4Address | None:
    """Return whom an http URL asks, None for names and whatever else is no IPv4 address."""
    if len(url) > MAX_URL or not _VISIBLE.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.username is not None or parts.port == 0:
            return None
        return ipaddress.IPv4Address(parts.hostname or "")
    except ValueError:
        return None


def external_address(service: Service) -> Call:
    """Ask for the address on the internet's side."""
    return _call(service, "GetExternalIPAddress", {})


def add_mapping(
    service: Service,
    transport: Transport,
    external_port: int,
    internal: ipaddress.IPv4Address,
    internal_port: int,
    lease: int,
    *,
    any_port: bool = False,
) -> Call:
    """Map a port to one of ours, for a lease in seconds; 0 is for ever, where a router knows nothing else.

    any_port: whether the router may choose another external port (AddAnyPortMapping, version 2).
    """
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(external_port),
        "NewProtocol": transport.upper(),
        "NewInternalPort": str(internal_port),
        "NewInternalClient": str(internal),
        "NewEnabled": "1",
        "NewPortMappingDescription": "peertunnel",
        "NewLeaseDuration": str(lease),
    }
    return _call(service, "AddAnyPortMapping" if any_port else "AddPortMapping", arguments)


def delete_mapping(service: Service, transport: Transport, external_port: int) -> Call:
    """End a mapping."""
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(external_port),
        "NewProtocol": transport.upper(),
    }
    return _call(service, "DeletePortMapping", arguments)


def decode(call: Call, data: bytes) -> Answer:
    """Read the answer to a call, whatever HTTP's status is; raises RemoteProtocolError."""
    body = read_xml(data).child("Body")
    if body is None:
        raise RemoteProtocolError("a SOAP answer has no body")
    if (response := body.child(f"{call.action}Response")) is not None:
        return Returned({value.name: value.text.strip() for value in response.children})
    for error in body.all("UPnPError"):
        return _failed(error)
    raise RemoteProtocolError("a SOAP answer is to something else")


def _failed(error: Element) -> Failed:
    code = error.value("errorCode")
    if not _NUMBER.fullmatch(code):
        raise RemoteProtocolError("a SOAP fault has no number")
    reason = "".join(letter for letter in error.value("errorDescription") if letter.isprintable())
    return Failed(int(code), reason[:_MAX_REASON])


def _call(service: Service, action: str, arguments: Mapping[str, str]) -> Call:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
    body = _ENVELOPE.format(action=action, kind=escape(service.kind), arguments=inner)
    return Call(action, f'"{service.kind}#{action}"', body.encode())


def _resolve(base: str, path: str, location: str) -> str | None:
    try:
        url = urljoin(base, path)
    except ValueError:
        return None
    return url if path and host_of(url) is not None and host_of(url) == host_of(location) else None
