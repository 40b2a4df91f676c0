"""Certificates: ours prove us to the library, everybody's kinds of keys prove their peers, and nothing else passes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_keys
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.rsa import create_new_key_pair as rsa_keys
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_keys
from libp2p.peer.id import ID
from libp2p.security.tls.certificate import encode_signed_key, verify_certificate_chain

from peertunnel.protocols.certificate import MAX_SIZE, issue, peer_of
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PEER = ed25519_peer_id(KEY.public_key().public_bytes_raw())
OTHERS = ed25519_keys(b"o" * 32)
CertificateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
UNKNOWN = "1.2.3.4", b"\x05\x00"
STRANGE_NAME = "2.5.29.17", bytes.fromhex("3002a300")  # subjectAltName, an X.400 address
VERSION_3, VERSION_4 = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")
CERTIFICATE_KEY = ec.generate_private_key(ec.SECP256R1())
OURS = issue(CERTIFICATE_KEY, PEER, KEY.sign, 2**150 + 1, NOW)


def foreign(
    pair: KeyPair = OTHERS,
    key: CertificateKey = CERTIFICATE_KEY,
    *,
    critical: bool = False,
    proof: bytes | None = None,
    also: tuple[str, bytes] | None = None,
    begin: datetime = NOW - DAY,
    signer: CertificateKey | None = None,
) -> bytes:
    """Give a certificate as other programs make them."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if proof is None:
        signature = pair.private_key.sign(b"libp2p-tls-handshake:" + spki)
        proof = encode_signed_key(pair.public_key.serialize(), signature)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, begin, begin + 2 * DAY)
    if proof:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, proof), critical=critical)
    if also:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(also[0]), also[1])
        builder = builder.add_extension(unknown, critical=critical)
    signer = signer or key
    hashed = None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(signer, hashed).public_bytes(Encoding.DER)


def test_ours_proves_us() -> None:
    assert peer_of(OURS, NOW) == PEER


def test_ours_proves_us_to_the_library() -> None:
    public = verify_certificate_chain([x509.load_der_x509_certificate(OURS)])
    assert str(ID.from_pubkey(public)) == PEER


@pytest.mark.parametrize(
    "pair", [OTHERS, secp256k1_keys(), rsa_keys(2048)], ids=("ed25519", "secp256k1", "rsa")
)
def test_every_kind_of_peer_is_proven(pair: KeyPair) -> None:
    assert peer_of(foreign(pair), NOW) == str(ID.from_pubkey(pair.public_key))


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=("ed25519", "p384", "rsa"),
)
def test_every_kind_of_certificate_key_serves(key: CertificateKey) -> None:
    assert peer_of(foreign(key=key), NOW) == str(ID.from_pubkey(OTHERS.public_key))


def test_the_extension_may_be_critical_and_others_unknown() -> None:
    assert peer_of(foreign(critical=True), NOW)
    assert peer_of(foreign(also=UNKNOWN), NOW)


SPKI = CERTIFICATE_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
SIGNATURE = OTHERS.private_key.sign(b"libp2p-tls-handshake:" + SPKI)
PROOF = encode_signed_key(OTHERS.public_key.serialize(), SIGNATURE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: foreign(proof=b""),
        lambda: foreign(also=UNKNOWN, critical=True),
        lambda: foreign(signer=ec.generate_private_key(ec.SECP256R1())),
        lambda: foreign(begin=NOW + DAY),
        lambda: foreign(begin=NOW - 3 * DAY),
        lambda: foreign(proof=encode_signed_key(OTHERS.public_key.serialize(), bytes(64))),
        lambda: foreign(proof=encode_signed_key(ed25519_keys(bytes(32)).public_key.serialize(), SIGNATURE)),
        lambda: foreign(proof=PROOF + b"\0"),
        lambda: foreign(proof=PROOF[:-1]),
        lambda: foreign(key=ec.generate_private_key(ec.SECP256R1()), proof=PROOF),
        lambda: OURS + bytes(MAX_SIZE),
        lambda: foreign(also=STRANGE_NAME),
        lambda: OURS.replace(VERSION_3, VERSION_4, 1),
        lambda: OURS[:-1],
        lambda: b"",
    ],
    ids=(
        "no extension",
        "another critical extension",
        "not self-signed",
        "not yet valid",
        "expired",
        "no signature",
        "another's signature",
        "something behind the proof",
        "a proof that is cut",
        "a proof for another certificate",
        "too large",
        "a name of a kind that nobody knows",
        "a version that is none",
        "cut",
        "nothing",
    ),
)
def test_what_proves_nobody_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_of(make(), NOW)


@pytest.mark.parametrize(
    "numbers", [(65537, 2**8192 + 1), (2**31 + 1, 2**2047 + 1)], ids=("modulus", "exponent")
)
def test_a_key_that_costs_time_is_refused_before_it_is_used(numbers: tuple[int, int]) -> None:
    public = rsa.RSAPublicNumbers(*numbers).public_key()
    large = cast("rsa.RSAPrivateKey", SimpleNamespace(public_key=lambda: public))
    with pytest.raises(RemoteProtocolError, match="too large"):
        peer_of(foreign(key=large, signer=CERTIFICATE_KEY), NOW)


@given(st.binary(max_size=200))
def test_garbage_in_the_extension_is_refused(proof: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_of(foreign(proof=proof or b"\0"), NOW)


@given(st.integers(0, len(OURS) - 1), st.integers(1, 255))
def test_a_changed_byte_never_gives_another_peer(at: int, change: int) -> None:
    changed = bytearray(OURS)
    changed[at] ^= change
    try:
        assert peer_of(bytes(changed), NOW) == PEER
    except RemoteProtocolError:
        pass
