"""Multiaddrs as text, held against the multiaddr library that py-libp2p uses."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from peertunnel.protocols.address import AddressError, address_of, split_address
from peertunnel.protocols.peerid import ed25519_peer_id

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
RELAY = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
RELAY_CID = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"

peer_ids = st.binary(min_size=32, max_size=32).map(ed25519_peer_id)
ports = st.integers(0, 65535)
hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.sampled_from(["/dns/example.org", "/dns4/example.org", "/dns6/example.org", "/dnsaddr/example.org"]),
)
carriers = st.one_of(
    ports.map(lambda port: f"/tcp/{port}"),
    ports.map(lambda port: f"/tcp/{port}/ws"),
    ports.map(lambda port: f"/tcp/{port}/tls/sni/example.org/ws"),
    ports.map(lambda port: f"/udp/{port}/quic-v1"),
)
places = st.builds(lambda host, carrier: host + carrier, hosts, carriers)
circuits = st.builds(lambda place, relay: f"{place}/p2p/{relay}/p2p-circuit", places, peer_ids)


@given(st.one_of(places, circuits), peer_ids)
def test_split_and_joined_again(place: str, peer_id: str) -> None:
    assert split_address(place) == (place, None)
    assert split_address(f"{place}/p2p/{peer_id}") == (place, peer_id)
    assert (
        address_of(place, peer_id)
        == address_of(f"{place}/p2p/{peer_id}", peer_id)
        == f"{place}/p2p/{peer_id}"
    )


@given(st.one_of(places, circuits), peer_ids)
@example(f"/ip6/{ipaddress.ip_address('::ffff:192.0.2.1')}/tcp/1", PEER)
def test_the_library_reads_what_we_write(place: str, peer_id: str) -> None:
    address = address_of(place, peer_id)
    assert (
        address_of(str(Multiaddr(address)), peer_id) == address
    )  # it may write an IPv6 address in another way


@given(
    st.one_of(
        st.text(),
        st.text("/ip4tcp2u6d:.0"),
        st.lists(st.sampled_from(["ip4", "tcp", "1", "p2p"])).map("/".join),
    )
)
def test_any_text_gives_an_address_or_the_error(text: str) -> None:
    try:
        place, peer_id = split_address(text)
    except AddressError:
        return
    assert split_address(place if peer_id is None else f"{place}/p2p/{peer_id}") == (place, peer_id)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("/ip4/192.0.2.1/tcp/4001/", ("/ip4/192.0.2.1/tcp/4001", None)),
        ("/ip6/2001:DB8::0:1/tcp/4001", ("/ip6/2001:db8::1/tcp/4001", None)),
        (f"/dns4/relay/tcp/1/ipfs/{RELAY}", ("/dns4/relay/tcp/1", RELAY)),
        (f"/dns4/relay/tcp/1/p2p/{RELAY_CID}", ("/dns4/relay/tcp/1", RELAY)),
        ("/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1", ("/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1", None)),
        (
            f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit",
            (f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit", None),
        ),
    ],
)
def test_one_form_of_each(text: str, split: tuple[str, str | None]) -> None:
    assert split_address(text) == split


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "looks like"),
        ("ip4/192.0.2.1/tcp/1", "looks like"),
        ("/", "no place"),
        ("//", "no protocol's name"),
        ("/ip4/192.0.2.1/carrier-pigeon/1", "'carrier-pigeon'"),
        ("/ip4/192.0.2.256/tcp/1", "value of ip4"),
        ("/ip6/fe80::1%eth0/tcp/1", "value of ip6"),
        ("/ip4/192.0.2.1/tcp/65536", "value of tcp"),
        ("/ip4/192.0.2.1/tcp/01", "value of tcp"),
        ("/ip4/192.0.2.1/tcp", "value of tcp"),
        ("/dns4/exa mple/tcp/1", "value of dns4"),
        ("/ip4/192.0.2.1/tcp/1/p2p/nobody", "value of p2p"),
        (f"/p2p/{PEER}", "no place"),
        ("/ws" * 1000, "looks like"),
    ],
)
def test_not_an_address(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        split_address(text)


def test_the_address_of_another_peer() -> None:
    with pytest.raises(AddressError, match="another peer"):
        address_of(f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}", PEER)


def test_with_its_peer_id_an_address_is_not_too_long_either() -> None:
    longest = "/ip4/192.0.2.1/tcp/1" + "/ws" * 300
    assert split_address(longest)
    with pytest.raises(AddressError, match="too long"):
        address_of(longest + "/ws" * 30, PEER)


def test_addresses_are_strict_where_python_is_not() -> None:
    assert ipaddress.ip_address("192.0.2.1")
    with pytest.raises(AddressError):
        split_address("/ip4/192.0.2.1\n/tcp/1")
