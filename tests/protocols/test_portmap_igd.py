"""UPnP: descriptions and answers as routers write them, and as nobody should."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import igd
from peertunnel.protocols.portmap.xml import MAX_DEPTH, MAX_ELEMENTS, MAX_XML, read_xml

PLACE = "http://192.168.1.1:5000/root/desc.xml"
KIND = "urn:schemas-upnp-org:service:WANIPConnection:"
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
SERVICE = igd.Service(KIND + "1", "http://192.168.1.1:5000/ctl")


def described(*services: tuple[str, str], base: str = "") -> bytes:
    """A description with these types and control URLs, in the middle of others."""
    listed = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        for kind, url in (("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3"), *services)
    )
    return (
        '<?xml version="1.0"?>\n<root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"{f'<URLBase>{base}</URLBase>' if base else ''}<device><deviceList><device><deviceList><device>"
        f"<serviceList>{listed}</serviceList></device></deviceList></device></deviceList></device></root>"
    ).encode()


def soap(inner: str) -> bytes:
    """An answer with this in its body."""
    return (
        '<?xml version="1.0"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/">'
        f"<SOAP-ENV:Body>{inner}</SOAP-ENV:Body></SOAP-ENV:Envelope>"
    ).encode()


def fault(code: str, reason: str = "ConflictInMappingEntry") -> bytes:
    """A fault as UPnP Device Architecture 2.0 has it in section 3.2.2."""
    return soap(
        "<SOAP-ENV:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
        f"<errorDescription>{reason}</errorDescription></UPnPError></detail></SOAP-ENV:Fault>"
    )


def test_services_come_the_best_first() -> None:
    data = described((PPP, "/ppp"), (KIND + "1", "ip1"), (KIND + "2", "http://192.168.1.1:5001/ip2"))
    assert igd.read_description(data, PLACE) == (
        igd.Service(KIND + "2", "http://192.168.1.1:5001/ip2"),
        igd.Service(KIND + "1", "http://192.168.1.1:5000/root/ip1"),
        igd.Service(PPP, "http://192.168.1.1:5000/ppp"),
    )


def test_the_base_of_urls() -> None:
    data = described((KIND + "1", "ctl"), base="http://192.168.1.1:80/x/")
    assert igd.read_description(data, PLACE) == (igd.Service(KIND + "1", "http://192.168.1.1:80/x/ctl"),)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://192.168.1.9:5000/ctl",
        "//192.168.1.9/ctl",
        "http://router.example/ctl",
        "https://192.168.1.1/ctl",
        "http://x@192.168.1.1/ctl",
        "http://192.168.1.1:99999/ctl",
        "http://[::1]/ctl",
        "http://[/",
        "/c tl",
        "/" + "c" * 1024,
        "file:///etc/passwd",
    ],
)
def test_nobody_else_is_called(url: str) -> None:
    assert igd.read_description(described((KIND + "1", url)), PLACE) == ()
    assert igd.read_description(described((KIND + "1", "/ctl"), base="http://192.168.1.9/"), PLACE) == ()


def test_services_are_bounded() -> None:
    assert len(igd.read_description(described(*[(PPP, "/x")] * 100), PLACE)) == igd.MAX_SERVICES


def test_a_call() -> None:
    call = igd.add_mapping(SERVICE, "tcp", 4002, ipaddress.IPv4Address("192.168.1.2"), 4001, 7200)
    assert call.header == f'"{KIND}1#AddPortMapping"'
    body = read_xml(call.body).child("Body")
    assert body is not None and body.children[0].name == "AddPortMapping"
    assert [(value.name, value.text) for value in body.children[0].children] == [
        ("NewRemoteHost", ""),
        ("NewExternalPort", "4002"),
        ("NewProtocol", "TCP"),
        ("NewInternalPort", "4001"),
        ("NewInternalClient", "192.168.1.2"),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "peertunnel"),
        ("NewLeaseDuration", "7200"),
    ]
    delete = igd.delete_mapping(SERVICE, "udp", 4002)
    assert b"<NewExternalPort>4002</NewExternalPort><NewProtocol>UDP</NewProtocol>" in delete.body


def test_an_answer() -> None:
    call = igd.external_address(SERVICE)
    data = soap(
        f'<u:GetExternalIPAddressResponse xmlns:u="{KIND}1"><NewExternalIPAddress> 192.0.2.9\n</NewExternalIPAddress>'
        "</u:GetExternalIPAddressResponse>"
    )
    answer = igd.decode(call, data + b"\0")
    assert isinstance(answer, igd.Returned) and answer.external_address == ipaddress.IPv4Address("192.0.2.9")


@pytest.mark.parametrize("text", ["", "0.0.0.0"])
def test_a_router_that_is_not_connected(text: str) -> None:
    assert igd.Returned({"NewExternalIPAddress": text}).external_address is None


def test_values_that_make_no_sense_are_refused() -> None:
    for text in ("router", "2001:db8::1", "1.2.3"):
        with pytest.raises(RemoteProtocolError):
            _ = igd.Returned({"NewExternalIPAddress": text}).external_address
    assert igd.Returned({"NewReservedPort": "4002"}).reserved_port == 4002
    for text in ("", "0", "65536", "-1", "4 ", "९"):
        with pytest.raises(RemoteProtocolError):
            _ = igd.Returned({"NewReservedPort": text}).reserved_port


@pytest.mark.parametrize(("code", "expected"), [("718", 718), ("725", 725), ("99999", 99999)])
def test_a_fault(code: str, expected: int) -> None:
    call = igd.external_address(SERVICE)
    assert igd.decode(call, fault(code)) == igd.Failed(expected, "ConflictInMappingEntry")
    assert igd.decode(call, fault(code, "\x9b" + "x" * 200)) == igd.Failed(expected, "x" * 100)


@pytest.mark.parametrize(
    "data", [soap(""), soap("<u:Other/>".replace("u:", "")), fault("x"), b"<a/>", b"", b"<a>"]
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        igd.decode(igd.external_address(SERVICE), data)


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<!DOCTYPE a><a/>",
        b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1),
        b"<a>" + b"<b/>" * MAX_ELEMENTS + b"</a>",
        b"<a>" + b"x" * MAX_XML + b"</a>",
        b'<?xml version="1.0" encoding="nonesuch"?><a/>',
        b'<?xml version="1.0" encoding="zlib_codec"?><a/>',
        b"<a>&x;</a>",
    ],
)
def test_documents_that_would_cost_too_much_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_xml(data)


def test_a_router_may_write_latin_1() -> None:
    assert read_xml('<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("latin-1")).text == "é"


@given(st.binary(max_size=100) | st.text(alphabet="<>/ab&;!\"'=? x", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for document in (data, soap("").replace(b"Body>", b"Body>" + data, 1)):
        try:
            igd.read_description(document, PLACE)
            igd.decode(igd.external_address(SERVICE), document)
        except RemoteProtocolError:
            pass


@given(st.text(max_size=40))
def test_a_url_is_read_or_refused(url: str) -> None:
    for place in (url, f"http://{url}", f"http://192.168.1.1{url}"):
        assert igd.host_of(place) is None or place.startswith("http://") or place[:4].lower() == "http"
