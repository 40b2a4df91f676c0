"""What we announce instead of a wildcard."""

import ipaddress

import pytest

from peertunnel.interfaces import InterfaceAddress, interface_addresses
from peertunnel.transport.addresses import dialable, is_public
from tests.node.lan import open_machine

BOTH = ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4002")


def at(interface: str, index: int, ip: str) -> InterfaceAddress:
    return InterfaceAddress(interface, index, ipaddress.ip_address(ip))


LOOPBACK = (at("lo", 1, "127.0.0.1"), at("lo", 1, "::1"))
LAN = (at("eth0", 2, "192.168.1.5"), at("eth0", 2, "fd00::5"))
LINK_LOCAL = (at("eth0", 2, "169.254.7.7"), at("eth0", 2, "fe80::5"))
DOCKER = (at("docker0", 3, "172.17.0.1"), at("br-0123456789ab", 4, "172.18.0.1"))


def expanded(*addresses: InterfaceAddress) -> tuple[str, ...]:
    return dialable(BOTH, lambda: addresses)


def test_wildcards_become_the_addresses_of_their_ip_version() -> None:
    assert expanded(*LAN) == ("/ip4/192.168.1.5/tcp/4001", "/ip6/fd00::5/tcp/4002")


def test_what_follows_the_port_is_kept() -> None:
    assert dialable(["/ip4/0.0.0.0/udp/9/quic-v1"], lambda: LAN) == ("/ip4/192.168.1.5/udp/9/quic-v1",)


def test_each_port_of_an_address_is_told() -> None:
    listen = ["/ip4/0.0.0.0/tcp/1", "/ip4/0.0.0.0/tcp/2"]
    assert dialable(listen, lambda: LAN) == ("/ip4/192.168.1.5/tcp/1", "/ip4/192.168.1.5/tcp/2")


def test_loopback_comes_last() -> None:
    assert expanded(*LOOPBACK, *LAN)[2:] == ("/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4002")


def test_link_local_is_left_out() -> None:
    assert expanded(*LINK_LOCAL, *LAN) == expanded(*LAN)


def test_link_local_is_better_than_nothing() -> None:
    assert expanded(*LINK_LOCAL, *LOOPBACK) == (
        "/ip4/169.254.7.7/tcp/4001",
        "/ip6/fe80::5/tcp/4002",
        "/ip4/127.0.0.1/tcp/4001",
        "/ip6/::1/tcp/4002",
    )


def test_container_bridges_are_left_out() -> None:
    assert expanded(*DOCKER, *LAN) == expanded(*LAN)


def test_container_bridges_are_better_than_link_local_addresses() -> None:
    assert expanded(*LINK_LOCAL, *DOCKER) == ("/ip4/172.17.0.1/tcp/4001", "/ip4/172.18.0.1/tcp/4001")


def test_the_order_of_interfaces_is_stable() -> None:
    other = at("wlan0", 5, "10.0.0.9")
    assert expanded(other, *LAN) == expanded(*LAN, other)


def test_explicit_addresses_stay_and_are_told_once() -> None:
    explicit = "/ip4/192.168.1.5/tcp/4001"
    assert dialable([BOTH[0], explicit], lambda: LAN) == (explicit,)


def test_without_a_wildcard_nobody_asks_for_interfaces() -> None:
    def unexpected() -> tuple[InterfaceAddress, ...]:
        raise AssertionError

    assert dialable(["/ip4/192.0.2.1/tcp/1"], unexpected) == ("/ip4/192.0.2.1/tcp/1",)


def test_without_a_network_there_is_nothing_to_announce() -> None:
    assert expanded() == ()


@pytest.mark.parametrize(
    ("interface", "is_virtual"),
    [
        ("docker0", True),
        ("br-0123456789ab", True),
        ("veth12ab34c", True),
        ("virbr0", True),
        ("cni0", True),
        ("podman1", True),
        ("br-lan", False),
        ("br0", False),
        ("vmbr0", False),
        ("eth0", False),
        ("wlp3s0", False),
        ("tailscale0", False),
    ],
)
def test_virtual_interfaces_are_known_by_name(interface: str, is_virtual: bool) -> None:
    assert at(interface, 1, "192.0.2.1").is_virtual is is_virtual


def test_this_machine_has_loopback() -> None:
    loopback = [address for address in interface_addresses() if str(address.ip) == "127.0.0.1"]
    assert [address.index > 0 for address in loopback] == [True]


async def test_an_interface_that_is_down_has_no_addresses() -> None:
    async with open_machine() as machine:
        cable = await machine.cable("10.1.0.1/24")
        assert "10.1.0.1" in await machine.addresses()
        await cable.down()
        assert "10.1.0.1" not in await machine.addresses()
        await cable.up()
        assert "10.1.0.1" in await machine.addresses()
        await machine.run("ip", "link", "set", cable.far_name, "down")
        assert "10.1.0.1" not in await machine.addresses(), "nobody is at the other end"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/ip4/8.8.8.8/tcp/4001/p2p/x", True),
        ("/ip4/192.168.1.7/tcp/4001/p2p/x", False),
        ("/ip4/127.0.0.1/tcp/4001/p2p/x", False),
        ("/ip4/100.64.0.1/tcp/4001/p2p/x", False),
        ("/ip6/2001:4860:4860::8888/tcp/4001/p2p/x", False),
        ("/ip4/8.8.8.8/udp/4001/quic-v1/p2p/x", False),
    ],
)
def test_only_global_ipv4_is_surely_reached_by_everybody(address: str, expected: bool) -> None:
    """It decides whether a node serves the DHT: IPv6 usually stands behind a firewall."""
    assert is_public(address) is expected
