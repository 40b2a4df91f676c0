"""Services: from an id, a link and addresses, and which peers they want."""

import pytest

from peertunnel.protocols.address import AddressError
from peertunnel.protocols.link import Link
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import TunnelIdError, derive_root, root_of_secret, topic

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
OTHER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
HERE = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"
THERE = f"/ip4/192.0.2.2/tcp/4001/p2p/{PEER}"
NOW = 20000 * 86400.0


def test_from_an_id() -> None:
    service = Service.from_id("ssh.example")
    assert service == Service(service.name, derive_root("ssh.example"), None, ())
    assert service.name == "service d13795"


def test_what_is_shown_gives_nothing_away() -> None:
    service = Service.from_id("ssh.example")
    assert service.root is not None
    shown = repr(service)
    assert "ssh.example" not in shown and repr(service.root) not in shown and "root" not in shown
    tag = bytes.fromhex(service.name.removeprefix("service "))
    assert not any(tag in wanted for wanted in service.topics_to_search(NOW))


def test_from_a_link() -> None:
    relay = f"/ip4/192.0.2.9/tcp/1/p2p/{OTHER}"
    service = Service.from_link(Link(PEER, 8000, (HERE,), (relay,), bytes(16)))
    assert service == Service(
        "peer …eQAJU5SA", root_of_secret(bytes(16)), PEER, (HERE, f"{relay}/p2p-circuit/p2p/{PEER}")
    )
    assert Service.from_link(Link(PEER)) == Service("peer …eQAJU5SA", None, PEER, ())


def test_from_addresses() -> None:
    assert Service.from_addresses([HERE, THERE]) == Service("peer …eQAJU5SA", None, PEER, (HERE, THERE))


def test_an_address_without_the_id_belongs_to_the_peer_that_others_name() -> None:
    service = Service.from_addresses(["/ip4/192.0.2.2/tcp/4001", HERE])
    assert service.addresses == (THERE, HERE)


@pytest.mark.parametrize(
    "addresses", [[], ["/ip4/192.0.2.1/tcp/4001"], [HERE, HERE.replace(PEER, OTHER)], ["nowhere"]]
)
def test_addresses_of_no_single_peer(addresses: list[str]) -> None:
    with pytest.raises(AddressError):
        Service.from_addresses(addresses)


def test_addresses_added_to_an_id_pin_its_peer() -> None:
    service = Service.from_id("ssh.example")
    pinned = service.with_addresses([HERE]).with_addresses([THERE, HERE])
    assert pinned == Service(service.name, service.root, PEER, (HERE, THERE))
    assert service.with_addresses([]) == service
    with pytest.raises(AddressError):
        pinned.with_addresses([HERE.replace(PEER, OTHER)])


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(TunnelIdError):
        Service.from_id("")


def test_topics() -> None:
    service = Service.from_id("ssh.example")
    assert service.root is not None
    days = [topic(service.root, day) for day in (19999, 20000, 20001)]
    assert service.topics_to_search(NOW) == tuple(days)
    assert service.topics_to_publish(NOW) == tuple(days[1:])
    public = Service.from_addresses([HERE])
    assert public.topics_to_search(NOW) == public.topics_to_publish(NOW) == ()


def test_who_is_wanted() -> None:
    by_id, by_peer = Service.from_id("ssh.example"), Service.from_addresses([HERE])
    topics = by_id.topics_to_publish(NOW)
    assert by_id.matches(OTHER, topics, NOW) and by_id.matches(OTHER, topics[1:], NOW)
    assert not by_id.matches(OTHER, (), NOW) and not by_id.matches(OTHER, (bytes(32),), NOW)
    assert not by_id.matches(OTHER, topics, NOW + 3 * 86400)
    assert by_peer.matches(PEER, (), NOW) and not by_peer.matches(OTHER, topics, NOW)
    assert not by_id.with_addresses([HERE]).matches(OTHER, topics, NOW)
