"""Links: there and back, what PortKey prints, and what is no link."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import LocalProtocolError
from peertunnel.protocols.link import Link, LinkError, parse_link

from .test_address import circuits, peer_ids, places

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
RELAY = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
RELAY_CID = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"
SECRET = bytes(range(240, 256))
FULL = (
    f"pk://{PEER}/8000?a=/ip4/192.0.2.1/tcp/4001&a=/ip6/2001:db8::1/udp/4001/quic-v1"
    f"&r=/dns4/relay.example/tcp/4001/p2p/{RELAY}#8PHy8_T19vf4-fr7_P3-_w"
)

links = st.builds(
    Link,
    peer_ids,
    st.none() | st.integers(1, 65535),
    st.lists(places | circuits, max_size=3).map(tuple),
    st.lists(st.builds("{}/p2p/{}".format, places, peer_ids), max_size=2).map(tuple),
    st.none() | st.binary(min_size=16, max_size=16),
)


@given(links)
def test_there_and_back(link: Link) -> None:
    assert parse_link(str(link)) == link


@given(
    st.one_of(st.text(), st.text().map("pk://".__add__), st.text("?a=&r#/%0:p+").map(f"pk://{PEER}".__add__))
)
def test_any_text_gives_a_link_or_the_error(text: str) -> None:
    try:
        link = parse_link(text)
    except LinkError:
        return
    assert parse_link(link.format()) == link


@given(links, st.data())
def test_a_damaged_link_gives_a_link_or_the_error(link: Link, data: st.DataObject) -> None:
    text = str(link)
    start, end = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    try:
        parse_link(text[:start] + data.draw(st.text(max_size=3)) + text[end:])
    except LinkError:
        pass


def test_every_part() -> None:
    link = parse_link(FULL)
    assert link == Link(
        PEER,
        8000,
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}", f"/ip6/2001:db8::1/udp/4001/quic-v1/p2p/{PEER}"),
        (f"/dns4/relay.example/tcp/4001/p2p/{RELAY}",),
        SECRET,
    )
    assert link.format() == str(link) == FULL


@pytest.mark.parametrize(
    ("text", "peer_id", "port"),
    [
        (PEER, PEER, None),
        (RELAY, RELAY, None),
        (RELAY_CID, RELAY, None),
        (f"pk://{PEER}", PEER, None),
        (f"PK://{PEER}/", PEER, None),
        (f"pk://{PEER}/3000", PEER, 3000),
        (f"pk://{RELAY_CID}/3000?", RELAY, 3000),
        (f"pk://{PEER}?later=1&and&more=/x", PEER, None),
    ],
)
def test_short_forms(text: str, peer_id: str, port: int | None) -> None:
    assert parse_link(text) == Link(peer_id, port)


def test_the_repr_keeps_the_secret() -> None:
    link = parse_link(FULL)
    assert "8PHy8" not in repr(link) and repr(SECRET) not in repr(link) and SECRET.hex() not in repr(link)


def test_errors_keep_the_secret() -> None:
    damages = [("8000", "port"), ("4001", "x"), ("_w", "_wx"), ("pk:", "p:"), ("pk://", ""), ("12D3", "12D0")]
    bare = f"{PEER}#8PHy8_T19vf4-fr7_P3-_w"
    for damaged in [bare, *(FULL.replace(old, new) for old, new in damages)]:
        with pytest.raises(LinkError) as caught:
            parse_link(damaged)
        assert "8PHy8" not in str(caught.value)


def test_escapes_are_read_and_a_plus_is_a_plus() -> None:
    assert parse_link(f"pk://{PEER}?a=%2Fip4%2F192.0.2.1%2Ftcp%2F1") == parse_link(
        f"pk://{PEER}?a=/ip4/192.0.2.1/tcp/1"
    )
    with pytest.raises(LinkError):
        parse_link(f"pk://{PEER}?a=/dns4/a+b/tcp/1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a peer id"),
        ("http://example.org/", "begins with pk://"),
        ("pk://", "not a peer id"),
        (f"pk://{PEER[:-1]}", "not a peer id"),
        (f"pk://{PEER}/0", "port"),
        (f"pk://{PEER}/65536", "port"),
        (f"pk://{PEER}/٣", "port"),
        (f"pk://{PEER}/1/2", "port"),
        (f"pk://{PEER}?a=", "multiaddr"),
        (f"pk://{PEER}?a=/ip4/192.0.2.1/tcp/1/p2p/{RELAY}", "another peer"),
        (f"pk://{PEER}?a=%ff", "not text"),
        (f"pk://{PEER}?r=/ip4/192.0.2.1/tcp/1", "which peer the relay is"),
        (f"pk://{PEER}#", "secret"),
        (f"pk://{PEER}#8PHy8_T19vf4-fr7_P3-", "secret"),
        (f"pk://{PEER}#8PHy8_T19vf4-fr7_P3-_x", "secret"),  # stray bits at the end
        (f"pk://{PEER}#8PHy8/T19vf4+fr7/P3+/w", "secret"),  # the other base64
        (f"pk://{PEER}#8PHy8_T19vf4-fr7_P3-_w==", "secret"),
        (f"pk://{PEER}#ü", "secret"),
    ],
)
def test_not_a_link(text: str, reason: str) -> None:
    with pytest.raises(LinkError, match=reason):
        parse_link(text)


def test_a_link_can_not_be_made_wrong() -> None:
    assert issubclass(LinkError, LocalProtocolError)
    for port, secret in ((0, None), (65536, None), (None, b""), (None, bytes(15)), (None, bytes(17))):
        with pytest.raises(LinkError):
            Link(PEER, port, (), (), secret)
