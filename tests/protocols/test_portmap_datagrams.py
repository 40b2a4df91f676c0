"""PCP, NAT-PMP and SSDP: bytes laid out by hand after the RFCs' figures, and any others."""

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import natpmp, pcp, ssdp

CLIENT, CLIENT6 = ipaddress.IPv4Address("192.168.1.2"), ipaddress.IPv6Address("2001:db8::2")
OUTSIDE = ipaddress.IPv4Address("192.0.2.9")
NONCE = bytes(range(1, 13))
MAPPED_CLIENT = "00000000 00000000 0000ffff c0a80102"


def test_pcp_requests() -> None:
    """RFC 6887, figures 2 and 9."""
    assert pcp.encode_announce(CLIENT) == bytes.fromhex(f"02 00 0000 00000000 {MAPPED_CLIENT}")
    assert pcp.encode_map(CLIENT, NONCE, "tcp", 4001, 4002, 7200) == bytes.fromhex(
        f"02 01 0000 00001c20 {MAPPED_CLIENT} 010203040506070809 0a0b0c 06 000000 0fa1 0fa2"
        "00000000 00000000 0000ffff 00000000"
    )
    assert pcp.encode_map(CLIENT6, NONCE, "udp", 4001, 0, 0) == bytes.fromhex(
        "02 01 0000 00000000 20010db8 00000000 00000000 00000002"
        "010203040506070809 0a0b0c 11 000000 0fa1 0000 00000000 00000000 00000000 00000000"
    )


PCP_ANSWERS: list[tuple[pcp.Answer, str]] = [
    (pcp.Announced(77), "02 80 00 00 00000000 0000004d 000000000000000000000000"),
    (
        pcp.Mapped(77, NONCE, "tcp", 4001, 4002, OUTSIDE, 7200),
        (
            "02 81 00 00 00001c20 0000004d 000000000000000000000000"
            "0102030405060708090a0b0c 06 000000 0fa1 0fa2 00000000 00000000 0000ffff c0000209"
        ),
    ),
    (
        pcp.Mapped(77, NONCE, "udp", 4001, 4001, CLIENT6, 60),
        (
            "02 81 00 00 0000003c 0000004d 000000000000000000000000"
            "0102030405060708090a0b0c 11 000000 0fa1 0fa1 20010db8 00000000 00000000 00000002"
        ),
    ),
    (
        pcp.Refused(77, pcp.Opcode.MAP, pcp.Result.NOT_AUTHORIZED, 30, NONCE),
        (
            "02 81 00 02 0000001e 0000004d 000000000000000000000000"
            "0102030405060708090a0b0c 06 000000 0fa1 0fa2 00000000 00000000 0000ffff c0000209"
        ),
    ),
    (
        pcp.Refused(0, pcp.Opcode.ANNOUNCE, pcp.Result.UNSUPP_OPCODE, 30),
        "02 80 00 04 0000001e 00000000 000000000000000000000000",
    ),
]


@pytest.mark.parametrize(("answer", "encoded"), PCP_ANSWERS, ids=lambda value: type(value).__name__)
def test_pcp_answers(answer: pcp.Answer, encoded: str) -> None:
    assert pcp.decode(bytes.fromhex(encoded)) == answer


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "00 80 0001 00000000",  # a router that only speaks NAT-PMP refuses the version so
        "02 00 00 00 00000000 0000004d 000000000000000000000000",  # a request
        "02 80 00 63 00000000 0000004d 000000000000000000000000",  # a result that there is not
        "02 80 00 00 00000000 0000004d 0000000000000000000000",  # cut
        "02 81 00 00 00000000 0000004d 000000000000000000000000",  # a mapping of nothing
        "02 82 00 00 00000000 0000004d 000000000000000000000000",  # PEER
        (
            "02 81 00 00 00001c20 0000004d 000000000000000000000000"
            "0102030405060708090a0b0c 01 000000 0fa1 0fa2 00000000 00000000 0000ffff c0000209"
        ),  # ICMP
        "02 80 00 00 00000000 0000004d 000000000000000000000000" + "00" * 1080,
    ],
)
def test_what_is_no_pcp_is_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        pcp.decode(bytes.fromhex(encoded))


def test_natpmp_requests() -> None:
    """RFC 6886, sections 3.2 and 3.3."""
    assert natpmp.encode_address_request() == b"\0\0"
    assert natpmp.encode_map_request("tcp", 4001, 4002, 7200).hex() == "000200000fa10fa200001c20"
    assert natpmp.encode_map_request("udp", 4001, 0, 0).hex() == "000100000fa1000000000000"


NATPMP_ANSWERS: list[tuple[natpmp.Answer, str]] = [
    (natpmp.AddressTold(77, OUTSIDE), "00 80 0000 0000004d c0000209"),
    (natpmp.Mapped(77, "tcp", 4001, 4002, 7200), "00 82 0000 0000004d 0fa1 0fa2 00001c20"),
    (natpmp.Mapped(77, "udp", 4001, 4002, 0), "00 81 0000 0000004d 0fa1 0fa2 00000000"),
    (
        natpmp.Refused(77, natpmp.Opcode.MAP_TCP, natpmp.Result.OUT_OF_RESOURCES),
        "00 82 0004 0000004d 0fa1 0000 00000000",
    ),
    (natpmp.Refused(0, natpmp.Opcode.ADDRESS, natpmp.Result.NETWORK_FAILURE), "00 80 0003 00000000"),
]


@pytest.mark.parametrize(("answer", "encoded"), NATPMP_ANSWERS, ids=lambda value: type(value).__name__)
def test_natpmp_answers(answer: natpmp.Answer, encoded: str) -> None:
    assert natpmp.decode(bytes.fromhex(encoded)) == answer


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "00800000000000",
        "02800000 0000004d c0000209",
        "00000000 0000004d c0000209",
        "00830000 0000004d c0000209",
        "00800009 0000004d c0000209",
        "00800000 0000004d c000020900",
        "00820000 0000004d c0000209",
    ],
)
def test_what_is_no_natpmp_is_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        natpmp.decode(bytes.fromhex(encoded))


def test_a_search() -> None:
    """UPnP Device Architecture 2.0, section 1.3.2."""
    assert ssdp.encode_search(ssdp.TARGETS[0]).split(b"\r\n") == [
        b"M-SEARCH * HTTP/1.1",
        b"HOST: 239.255.255.250:1900",
        b'MAN: "ssdp:discover"',
        b"MX: 1",
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1",
        b"",
        b"",
    ]


def test_an_answer_to_a_search() -> None:
    data = b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nst: upnp:x\r\nLocation:  http://192.168.1.1:5000/d.xml \r\n\r\n"
    assert ssdp.decode(data) == ssdp.Found("upnp:x", "http://192.168.1.1:5000/d.xml")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 404 Not Found\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1/" + b"x" * 500 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1/\r\nX: " + b"x" * 4096,
    ],
)
def test_what_is_no_answer_to_a_search_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ssdp.decode(data)


@pytest.mark.parametrize(
    "decode", [pcp.decode, natpmp.decode, ssdp.decode], ids=lambda decode: decode.__module__
)
@given(
    data=st.binary(max_size=100),
    start=st.sampled_from([b"", b"\2\x81\0\0", b"\0\x82\0\0", b"HTTP/1.1 200 OK\r\nlocation:x"]),
)
def test_any_bytes_are_an_answer_or_refused(
    decode: Callable[[bytes], object], data: bytes, start: bytes
) -> None:
    try:
        assert decode(start + data) is not None
    except RemoteProtocolError:
        pass
