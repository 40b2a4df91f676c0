"""A router with miniupnpd forwards a port for whoever asks by NAT-PMP, and says where UPnP is spoken."""

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.nat.lab.kinds import Nat
from tests.nat.lab.lab import Lab
from tests.nat.lab.probes import TCP, UDP, listening

NAT_PMP, SSDP = 5351, 1900
EXTERNAL_ADDRESS, MAP_TCP = 0, 2
LIFETIME_SECONDS = 120
SEARCH = (
    'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
    "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
)


@pytest.fixture(scope="module")
def home() -> Iterator[Lab]:
    with Lab({"alice": Nat("cone", upnp=True), "bob": "cone"}) as lab:
        yield lab


def _ask(lab: Lab, request: bytes, port: int, address: str) -> bytes:
    with lab.host("alice").socket(UDP) as here:
        here.settimeout(1)
        deadline = time.monotonic() + 10
        while True:
            here.sendto(request, (address, port))
            try:
                return here.recv(2000)
            except TimeoutError:
                assert time.monotonic() < deadline


def test_nat_pmp_tells_the_address_outside(home: Lab) -> None:
    answer = _ask(home, bytes([0, EXTERNAL_ADDRESS]), NAT_PMP, home.router("alice").lan_ip)
    assert socket.inet_ntoa(answer[8:12]) == home.router("alice").wan_ip


def test_nat_pmp_forwards_a_port_and_closes_it(home: Lab) -> None:
    alice, bob, router = home.host("alice"), home.host("bob"), home.router("alice")
    for lifetime, is_open in ((LIFETIME_SECONDS, True), (0, False)):
        request = struct.pack("!BBHHHI", 0, MAP_TCP, 0, 4001, 4001 if lifetime else 0, lifetime)
        answer = _ask(home, request, NAT_PMP, router.lan_ip)
        assert struct.unpack("!H", answer[2:4]) == (0,)
        port = struct.unpack("!H", answer[10:12])[0] or 4001
        with listening(alice, 4001) as listener, bob.socket(TCP) as here:
            here.settimeout(1)
            if is_open:
                here.connect((router.wan_ip, port))
                listener.accept()[0].close()
            else:
                with pytest.raises(TimeoutError):
                    here.connect((router.wan_ip, port))


def test_a_search_finds_the_gateway(home: Lab) -> None:
    answer = _ask(home, SEARCH.encode(), SSDP, "239.255.255.250").decode()
    assert f"LOCATION: http://{home.router('alice').lan_ip}:" in answer
