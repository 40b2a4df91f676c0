"""Routers that are odd or hostile, on loopback addresses; tests/nat has real ones."""

import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from peertunnel.portmap import gateway
from peertunnel.portmap.gateway import Gateway, _routes4, _routes6, default_gateways
from peertunnel.portmap.listener import Listener, listeners
from peertunnel.portmap.natpmp import NatPmpRouter
from peertunnel.portmap.pcp import PcpRouter
from peertunnel.portmap.router import Mapping, NoAnswer, Refusal, Router
from peertunnel.portmap.search import find_router
from peertunnel.portmap.status import status_of
from peertunnel.portmap.upnp import UpnpRouter
from peertunnel.protocols.portmap import PORT
from peertunnel.protocols.portmap.xml import Element
from tests.node.igd_server import IgdServer, connected, fault, http, ok, running_igd
from tests.node.test_changes import out_of_files

# Of our own, so that nobody else on this machine is in the way, and no other run of these tests.
ROUTER, OWN, ELSEWHERE = (
    f"127.{77 + number}.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}" for number in range(3)
)
GATEWAY = Gateway(ipaddress.IPv4Address(ROUTER), ipaddress.IPv4Address(OWN))
TCP = Listener("tcp", 4001)
OUTSIDE = ipaddress.IPv4Address("1.2.4.1")


def leases(server: IgdServer) -> list[str]:
    return [call.value("NewLeaseDuration") for call in server.calls if call.name == "AddPortMapping"]


async def test_a_router_that_only_knows_leases_for_ever() -> None:
    def answer(call: Element) -> bytes:
        return fault(725) if call.value("NewLeaseDuration") not in ("", "0") else connected(call)

    async with running_igd(IgdServer(ROUTER, answer)) as server:
        router = await UpnpRouter.find(GATEWAY)
        mapping = await router.map(TCP, 600, None)
        assert mapping == Mapping(TCP, OUTSIDE, 4001, 0)
        await router.map(TCP, 600, mapping)
        assert leases(server) == ["600", "0", "0"]
        await router.unmap(mapping)
        assert server.calls[-1].name == "DeletePortMapping"
        await router.aclose()


async def test_another_port_where_ours_is_taken() -> None:
    def answer(call: Element) -> bytes:
        return fault(718) if call.value("NewExternalPort") == "4001" else connected(call)

    async with running_igd(IgdServer(ROUTER, answer)):
        router = await UpnpRouter.find(GATEWAY)
        mapping = await router.map(TCP, 600, None)
        assert mapping.external_port != 4001 and mapping.lease == 600
        assert await router.map(TCP, 600, mapping) == mapping
        await router.aclose()


async def test_a_router_that_takes_our_own_mapping_for_anothers() -> None:
    mapped: set[str] = set()

    def answer(call: Element) -> bytes:
        port = call.value("NewExternalPort")
        if call.name == "AddPortMapping":
            if port in mapped:
                return fault(718)
            mapped.add(port)
        elif call.name == "DeletePortMapping":
            mapped.remove(port)
        return connected(call)

    async with running_igd(IgdServer(ROUTER, answer)):
        router = await UpnpRouter.find(GATEWAY)
        mapping = await router.map(TCP, 600, None)
        for _ in range(3):
            assert await router.map(TCP, 600, mapping) == mapping
        assert mapped == {"4001"}
        await router.aclose()


async def test_another_port_where_ours_has_become_anothers() -> None:
    def answer(call: Element) -> bytes:
        is_taken = call.value("NewExternalPort") == "4001"
        return fault(718 if call.name == "AddPortMapping" else 606) if is_taken else connected(call)

    async with running_igd(IgdServer(ROUTER, answer)) as server:
        router = await UpnpRouter.find(GATEWAY)
        mapping = await router.map(TCP, 600, Mapping(TCP, OUTSIDE, 4001, 600))
        assert mapping.external_port != 4001
        changes = [call for call in server.calls if call.name != "GetExternalIPAddress"]
        assert [call.name.removesuffix("PortMapping") for call in changes] == ["Add", "Delete", "Add", "Add"]
        await router.aclose()


async def test_a_router_that_refuses_says_why() -> None:
    def answer(call: Element) -> bytes:
        return fault(606) if call.name == "AddPortMapping" else connected(call)

    async with running_igd(IgdServer(ROUTER, answer)) as server:
        router = await UpnpRouter.find(GATEWAY)
        with pytest.raises(Refusal, match="606 No"):
            await router.map(TCP, 600, None)
        assert leases(server) == ["600", "0"]
        await router.aclose()


@pytest.mark.parametrize(
    "page",
    [
        http("<root>"),
        http("<!DOCTYPE root><root/>"),
        http("<root/>"),
        b"\0\1\2\3",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.77.9/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://xn--a/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \xff\r\nContent-\xff: -1\r\n\r\n",
    ],
)
async def test_hostile_pages_are_no_router(page: bytes) -> None:
    async with running_igd(IgdServer(ROUTER, page=page)):
        with pytest.raises(NoAnswer):
            await UpnpRouter.find(GATEWAY)


@pytest.mark.parametrize(
    ("page", "why_not"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"<" * 16, "too much"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n" + b"<" * 16, "too much"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 16, "."),
    ],
)
async def test_pages_without_end_are_not_read_to_the_end(page: bytes, why_not: str) -> None:
    async with running_igd(IgdServer(ROUTER, page=page, is_endless=True)):
        with pytest.raises(NoAnswer, match=why_not):
            await UpnpRouter.find(GATEWAY)


async def test_nobody_makes_us_call_another_machine() -> None:
    async with running_igd(IgdServer(ELSEWHERE)) as victim:
        there = f"http://{ELSEWHERE}:1/desc.xml"
        async with running_igd(IgdServer(ROUTER, location=there)):
            with pytest.raises(NoAnswer, match="no answer"):
                await UpnpRouter.find(GATEWAY)
        assert victim.calls == []


@pytest.mark.parametrize("address", ["", "0.0.0.0"])
async def test_a_router_without_internet(address: str) -> None:
    def answer(call: Element) -> bytes:
        return ok(call.name, NewExternalIPAddress=address)

    async with running_igd(IgdServer(ROUTER, answer)):
        with pytest.raises(Refusal, match="no address"):
            await UpnpRouter.find(GATEWAY)


@asynccontextmanager
async def datagrams(answers: Callable[[bytes], Iterable[bytes]]) -> AsyncIterator[list[bytes]]:
    """Answer requests on the router's port, and give them."""
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind((ROUTER, PORT))

            async def respond() -> None:
                while True:
                    request, source = await sock.recvfrom(2000)
                    heard.append(request)
                    for answer in answers(request):
                        await sock.sendto(answer, source)

            nursery.start_soon(respond)
            yield heard
            nursery.cancel_scope.cancel()


PCP_HELLO = bytes.fromhex("0280000000000000 0000004d") + bytes(12)
PCP_REFUSAL = bytes.fromhex("0281000200000000 0000004d") + bytes(12)


async def test_a_mapping_can_be_changed_by_who_knows_the_secret() -> None:
    nonces = []
    for secret in (b"one", b"one", b"other"):
        async with datagrams(lambda request: [PCP_REFUSAL if request[1] else PCP_HELLO]) as heard:
            router = await PcpRouter.find(GATEWAY, secret)
            with pytest.raises(Refusal, match="NOT_AUTHORIZED"):
                await router.map(TCP, 600, None)
            nonces.append(heard[-1][24:36])
            await router.aclose()
    assert nonces[0] == nonces[1] != nonces[2]


async def test_answers_to_somebody_else_are_not_ours() -> None:
    other = (
        bytes.fromhex("0281000000000258 0000004d")
        + bytes(12)
        + bytes(12)
        + bytes.fromhex("06000000 0fa10fa1")
    )
    async with datagrams(lambda _: [b"\0", PCP_HELLO, other + bytes(16)]):
        router = await PcpRouter.find(GATEWAY, b"")
        with pytest.raises(NoAnswer):
            await router.map(TCP, 600, None)
        await router.aclose()


async def test_a_router_that_speaks_natpmp_alone() -> None:
    told, mapped = (
        bytes.fromhex("00800000 0000004d 01020401"),
        bytes.fromhex("00820000 0000004d 0fa10fa2 00000258"),
    )
    async with datagrams(lambda _: [bytes.fromhex("0080000100000000")]):
        with pytest.raises(NoAnswer):
            await PcpRouter.find(GATEWAY, b"")
    async with datagrams(lambda request: [mapped if request[1] else told]):
        router = await NatPmpRouter.find(GATEWAY)
        assert await router.map(TCP, 7200, None) == Mapping(TCP, OUTSIDE, 4002, 600)
        await router.aclose()


async def test_where_nobody_listens_that_is_known_at_once(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.05
    began = trio.current_time()
    with pytest.raises(NoAnswer, match="refused"):
        await NatPmpRouter.find(GATEWAY)
    assert trio.current_time() - began < 0.2


@pytest.mark.parametrize(
    ("external", "address"),
    [
        ("1.2.4.1", "/ip4/1.2.4.1/tcp/4002"),
        ("2a00::1", "/ip6/2a00::1/tcp/4002"),
        ("100.64.0.1", None),
        ("10.0.0.1", None),
        ("192.168.1.7", None),
    ],
)
def test_only_public_addresses_are_told(external: str, address: str | None) -> None:
    status = status_of(GATEWAY.ip, "PCP", Mapping(TCP, ipaddress.ip_address(external), 4002, 600))
    assert status.address == address
    assert status.why_not == ("" if address else f"the router's own address {external} is not public")


def test_what_is_mapped() -> None:
    given = [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip6/::/tcp/4002",
        "/ip4/0.0.0.0/udp/4001/quic-v1",
        "/ip4/127.0.0.1/tcp/4003",
        "/ip6/::1/tcp/4003",
        "/ip4/0.0.0.0/tcp/0",
        "/dns/example/tcp/4003",
    ]
    assert listeners(given) == (Listener("tcp", 4001), Listener("tcp", 4002, 6), Listener("udp", 4001))


async def test_without_descriptors_there_is_no_router_for_now() -> None:
    async def grants(_: Router) -> bool:
        raise AssertionError

    with out_of_files():
        assert (await find_router(GATEWAY, b"", grants))[0] is None


def test_routing_tables_of_linux() -> None:
    """Lines of a real machine's, with a network beside the default route and one that is down."""
    four = [
        "eth0 00000000 0107A8C0 0003 0 0 100 00000000 0 0 0",
        "eth0 0007A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0",
        "eth1 00000000 0108A8C0 0002 0 0 50 00000000 0 0 0",
    ]
    assert list(_routes4(line.split() for line in four)) == [(100, ipaddress.IPv4Address("192.168.7.1"))]
    nothing, router = "0" * 32, "fe80" + "0" * 27 + "1"
    six = [
        f"{nothing} 00 {nothing} 00 {router} 00000400 00000001 00000000 00000003 eth0",
        f"{nothing} 00 {nothing} 00 {nothing} ffffffff 00000001 00000000 00200200 lo",
        f"{router} 80 {nothing} 00 {nothing} 00000000 00000002 00000000 80200001 eth0",
    ]
    assert list(_routes6(line.split() for line in six)) == [(1024, ipaddress.IPv6Address("fe80::1"), "eth0")]


@pytest.mark.parametrize("content", [None, "\0\n", "eth0 00000000 somewhere 0003 0 0 100 00000000 0 0 0\n"])
def test_a_router_whose_route_is_not_told_may_still_be_found_by_multicast(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "route").write_text(content)
    monkeypatch.setattr(gateway, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(gateway, "_ELSEWHERE", ROUTER)
    assert default_gateways() == (Gateway(None, ipaddress.IPv4Address("127.0.0.1")),)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_without_routes_of_ipv6_that_of_ipv4_is_known(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreadable:
        def read_text(self) -> str:
            raise error

    (tmp_path / "route").write_text("lo 00000000 0100007F 0003 0 0 100 00000000 0 0 0\n")
    monkeypatch.setattr(gateway, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(gateway, "_ROUTES6", Unreadable())
    here = ipaddress.IPv4Address("127.0.0.1")
    assert default_gateways() == (Gateway(here, here),)
