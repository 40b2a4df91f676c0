"""Roots and topics: fixed vectors, which no later version may change, and the DHT key of the Go PeerTunnel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols import topic as topics
from peertunnel.protocols.topic import TunnelIdError, cid, derive_root, dht_key, go_peertunnel_topic, topic

# The root was checked with argon2-cffi, the topic and the link's root with HMAC by hand.
ROOT = bytes.fromhex("23a247f019c118c4e2db8501d2e4b0809d2b7039378164ce0d20b503d2e64c11")
TOPIC = bytes.fromhex("b30058e9af725462aae8bc0a3bccc7cdacf165d04d8d26315b20037c5f130fca")


def test_the_root_of_an_id() -> None:
    assert derive_root("ssh.example") == ROOT


def test_an_id_is_the_same_however_it_was_typed() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert derive_root(composed) == derive_root(decomposed) != derive_root("cafe")


def test_the_root_of_a_link() -> None:
    root = topics.root_of_secret(bytes(range(16)))
    assert root.hex() == "5b050a995b2e600b4fc45eb8d641b529246767121a3eab3512cbd186157460ae"


def test_the_topic_of_a_day() -> None:
    assert topic(ROOT, 20000) == TOPIC
    assert cid(TOPIC) == "bafkreie7nof7nhz32t7nxwwsjepxahumuu7ynxusnba6c6cvesncgmuwua"


@given(st.integers(0, 10**6), st.floats(0, 86399.9))
def test_clocks_a_day_apart_meet(day: int, seconds: float) -> None:
    now = day * 86400 + seconds
    assert topics.topics_to_publish(ROOT, now) == (topic(ROOT, day), topic(ROOT, day + 1))
    for other in (now - 86400, now, now + 86400):
        assert set(topics.topics_to_publish(ROOT, now)) & set(topics.topics_to_search(ROOT, other))


def test_what_is_searched() -> None:
    assert topics.topics_to_search(ROOT, 20000 * 86400) == tuple(
        topic(ROOT, day) for day in (19999, 20000, 20001)
    )


def test_the_key_of_the_go_peertunnel() -> None:
    public = go_peertunnel_topic("ssh.tao.gossip")
    assert public == b"/peertunnel/1.0.0/ssh.tao.gossip"
    assert dht_key(public).hex() == "1220cb8f1f18c9df0fbec133ca66a8c2842bf9c9cbe681ce62732243c08db66b0c74"
    assert cid(public) == "bafkreiglr4prrso7b67mcm6km2umfbbl7he4xzubzzrhgisdycg3m2ymoq"


@pytest.mark.parametrize("tunnel_id", ["", "\udc80"])
def test_not_an_id(tunnel_id: str) -> None:
    with pytest.raises(TunnelIdError):
        derive_root(tunnel_id)
    with pytest.raises(TunnelIdError):
        go_peertunnel_topic(tunnel_id)


def test_a_root_is_stretched_once() -> None:
    before = derive_root.cache_info().misses
    derive_root("once")
    derive_root("once")
    assert derive_root.cache_info().misses == before + 1
