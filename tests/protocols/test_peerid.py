"""Peer ids: the specification's examples, and what py-libp2p makes of the same bytes."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.peer.id import ID

from peertunnel.protocols.peerid import PeerIdError, ed25519_peer_id, parse_peer_id, short_peer_id

ED25519 = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SHA256 = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
SHA256_CID = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"

multihashes = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda key: b"\x00\x24\x08\x01\x12\x20" + key),
    st.binary(min_size=33, max_size=33).map(lambda key: b"\x00\x25\x08\x02\x12\x21" + key),
    st.binary(min_size=32, max_size=32).map(lambda digest: b"\x12\x20" + digest),
)


@pytest.mark.parametrize(
    ("text", "peer_id"), [(ED25519, ED25519), (SHA256, SHA256), (SHA256_CID, SHA256)]
)  # libp2p specs, peer-ids, "String representation"
def test_examples(text: str, peer_id: str) -> None:
    assert parse_peer_id(text) == peer_id


@given(multihashes)
def test_both_forms_are_the_same_peer(multihash: bytes) -> None:
    peer_id = ID(multihash).to_base58()
    cid = "b" + base64.b32encode(b"\x01\x72" + multihash).decode().lower().rstrip("=")
    assert parse_peer_id(peer_id) == peer_id
    assert parse_peer_id(cid) == peer_id


@given(st.binary(min_size=32, max_size=32))
def test_ed25519(public_key: bytes) -> None:
    peer_id = ed25519_peer_id(public_key)
    assert peer_id.startswith("12D3KooW")
    assert ID.from_base58(peer_id).to_bytes()[-32:] == public_key
    assert parse_peer_id(peer_id) == peer_id


@given(st.one_of(st.text(), st.text("1Qmbaf2z7", max_size=80), st.from_regex(r"b[a-z2-7]+", fullmatch=True)))
def test_any_text_gives_a_peer_id_or_the_error(text: str) -> None:
    try:
        peer_id = parse_peer_id(text)
    except PeerIdError:
        return
    assert parse_peer_id(peer_id) == peer_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Qm",
        "b",
        ED25519[:-1],
        ED25519 + "A",
        ED25519.replace("e", "0"),  # no base58 digit
        SHA256_CID.upper(),
        SHA256_CID[1:],
        "bafkreiglr4prrso7b67mcm6km2umfbbl7he4xzubzzrhgisdycg3m2ymoq",  # a CID, but of data
        "ssh.example",
    ],
)
def test_not_a_peer_id(text: str) -> None:
    with pytest.raises(PeerIdError):
        parse_peer_id(text)


def test_a_very_long_text_is_refused_at_once() -> None:
    with pytest.raises(PeerIdError, match="at most"):
        parse_peer_id("1" + "z" * 10**6)


def test_short_ids_show_what_differs() -> None:
    assert short_peer_id(ED25519) == "…eQAJU5SA"
