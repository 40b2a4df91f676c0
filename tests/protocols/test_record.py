"""Signed peer records: what py-libp2p signs is read, what we sign it reads, and nothing forged passes."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_keys
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.rsa import create_new_key_pair as rsa_keys
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_keys
from libp2p.peer.envelope import consume_envelope, seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord as LibraryRecord
from multiaddr import Multiaddr

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id, multihash_of, peer_id_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.record import MAX_ADDRESSES, MAX_ENVELOPE, Form, PeerRecord, seal, unseal

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PEER = ed25519_peer_id(KEY.public_key().public_bytes_raw())
PLACES = ("/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::7/udp/4001/quic-v1")
RECORD = PeerRecord(PEER, 1_700_000_000, tuple(Multiaddr(place).to_bytes() for place in PLACES))
FORMS = pytest.mark.parametrize("form", Form)


@FORMS
def test_a_record_reads_back(form: Form) -> None:
    assert unseal(seal(RECORD, KEY.sign, form)) == RECORD


@FORMS
def test_an_envelope_has_the_form_of_the_specification(form: Form) -> None:
    envelope = seal(RECORD, KEY.sign, form)
    domain, kind = form.value
    outer = decode_message(envelope)
    payload, signature = outer.blob(3), outer.blob(5)
    signed = bytes([len(domain)]) + domain + bytes([len(kind)]) + kind + bytes([len(payload)]) + payload
    KEY.public_key().verify(signature, signed)
    assert (outer.blob(1), outer.blob(2)) == (multihash_of(PEER)[2:], kind)
    inner = decode_message(payload)
    assert (inner.blob(1), inner.integer(2)) == (multihash_of(PEER), 1_700_000_000)
    assert [decode_message(address) for address in inner.blobs(3)] == [{1: [raw]} for raw in RECORD.addresses]


def test_the_two_forms_are_the_ones_in_use() -> None:
    assert [form.value for form in Form] == [
        (b"libp2p-peer-record", b"\x03\x01"),
        (b"libp2p-routing-state", b"/libp2p/routing-state-record"),
    ]


def test_py_libp2p_reads_ours() -> None:
    _, record = consume_envelope(seal(RECORD, KEY.sign), "libp2p-peer-record")
    assert (str(record.peer_id), record.seq, tuple(map(str, record.addrs))) == (PEER, 1_700_000_000, PLACES)


@pytest.mark.parametrize(
    "keys", [ed25519_keys, secp256k1_keys, lambda: rsa_keys(2048)], ids=["ed25519", "secp256k1", "rsa"]
)
def test_what_py_libp2p_signs_is_read(keys: Callable[[], KeyPair]) -> None:
    pair = keys()
    peer_id = ID.from_pubkey(pair.public_key)
    theirs = LibraryRecord(peer_id, [Multiaddr(place) for place in PLACES], 7)
    envelope = seal_record(theirs, pair.private_key).marshal_envelope()
    assert unseal(envelope) == PeerRecord(str(peer_id), 7, RECORD.addresses)
    broken = envelope[:-1] + bytes([envelope[-1] ^ 1])
    with pytest.raises(RemoteProtocolError):
        unseal(broken)


def forged(**changed: bytes) -> bytes:
    """Give the envelope with fields replaced, and its signature left as it was."""
    outer = decode_message(seal(RECORD, KEY.sign))
    numbers = {"key": 1, "kind": 2, "payload": 3, "signature": 5}
    return encode_message((number, changed.get(name, outer.blob(number))) for name, number in numbers.items())


OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
OTHER_ID = ed25519_peer_id(OTHER.public_key().public_bytes_raw())


@pytest.mark.parametrize(
    "envelope",
    [
        forged(payload=b""),
        forged(kind=Form.LEGACY.value[1]),
        forged(kind=b"\x03\x02"),
        forged(kind=b""),
        forged(key=b""),
        forged(key=multihash_of(OTHER_ID)[2:]),
        forged(key=b"\x08\x09\x12\x20" + b"k" * 32),
        forged(key=b"\x08\x00\x12\x20" + b"k" * 32),
        forged(key=b"\x08\x02\x12\x21" + b"k" * 33),
        forged(signature=b""),
        b"",
        bytes(MAX_ENVELOPE + 1),
    ],
)
def test_what_is_forged_is_refused(envelope: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unseal(envelope)


def test_nobody_signs_for_another() -> None:
    with pytest.raises(RemoteProtocolError, match="signature"):
        unseal(forged(key=multihash_of(OTHER_ID)[2:], signature=OTHER.sign(b"")))
    stolen = decode_message(seal(RECORD, KEY.sign)).blob(3)
    domain, kind = Form.STANDARD.value
    signed = b"".join(bytes([len(part)]) + part for part in (domain, kind, stolen))
    with pytest.raises(RemoteProtocolError, match="another peer"):
        unseal(forged(key=multihash_of(OTHER_ID)[2:], signature=OTHER.sign(signed)))


def test_only_ed25519_signs() -> None:
    rsa_id = peer_id_of(b"\x12\x20" + bytes(32))
    with pytest.raises(LocalProtocolError, match="Ed25519"):
        seal(PeerRecord(rsa_id, 1, ()), KEY.sign)


def test_a_record_has_an_end() -> None:
    with pytest.raises(LocalProtocolError, match="at most"):
        seal(PeerRecord(PEER, 1, (bytes(MAX_ENVELOPE),)), KEY.sign)
    with pytest.raises(RemoteProtocolError, match="addresses"):
        unseal(seal(PeerRecord(PEER, 1, (b"\x04",) * (MAX_ADDRESSES + 1)), KEY.sign))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unseal(data)


@given(st.integers(0, len(seal(RECORD, KEY.sign)) - 1), st.integers(1, 255))
def test_one_changed_byte_is_noticed(place: int, change: int) -> None:
    envelope = bytearray(seal(RECORD, KEY.sign))
    envelope[place] ^= change
    try:
        assert unseal(bytes(envelope)) == RECORD  # a field's number may change what nobody reads
    except RemoteProtocolError:
        pass
