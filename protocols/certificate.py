"""A peer's certificate: X.509, self-signed, with the key of its peer id in an extension (libp2p specs, tls).

The TLS handshake proves that a peer has the certificate's key; here the certificate proves who that is.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, multihash_of
from peertunnel.protocols.publickey import PublicKey, is_cheap

MAX_SIZE = 16 * 1024  # bytes; RSA keys and signatures of 8192 bits, twice, take a third
_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_SIGNED = b"libp2p-tls-handshake:"  # stands in front of the certificate's key where the peer's key signs it
_LIFE = timedelta(days=365 * 100)  # as in go-libp2p: a certificate is not kept anyway
_DRIFT = timedelta(hours=1)  # by which the peer's clock may be behind ours
_SEQUENCE, _OCTETS = 0x30, 0x04  # DER tags
_FAULTS = (  # what the library raises for a certificate that is none
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def issue(
    key: ec.EllipticCurvePrivateKey,
    peer_id: str,
    sign: Callable[[bytes], bytes],
    serial: int,
    now: datetime,
) -> bytes:
    """Give a certificate of ours, as DER.

    Args:
        key: what the handshake will be signed with.
        peer_id: ours, of an Ed25519 key.
        sign: signs with that key.
        serial: a random number, up to 159 bits.
        now: the time, with its zone.
    """
    signature = sign(_SIGNED + _spki(key.public_key()))
    proof = _der(_SEQUENCE, _der(_OCTETS, multihash_of(peer_id)[2:]) + _der(_OCTETS, signature))
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial))])
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(serial).not_valid_before(now - _DRIFT).not_valid_after(now + _LIFE)
    builder = builder.add_extension(x509.UnrecognizedExtension(_EXTENSION, proof), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def peer_of(certificate: bytes, now: datetime) -> str:
    """Return the peer id that a certificate (DER) proves, in base58; raises RemoteProtocolError if it proves none."""
    if len(certificate) > MAX_SIZE:
        raise RemoteProtocolError(f"a certificate has at most {MAX_SIZE} bytes")
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        is_current = parsed.not_valid_before_utc <= now <= parsed.not_valid_after_utc
        extensions = list(parsed.extensions)
        own_key = parsed.public_key()
        if isinstance(own_key, rsa.RSAPublicKey) and not is_cheap(own_key):
            raise RemoteProtocolError("a certificate's key is too large")
        spki = own_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        parsed.verify_directly_issued_by(parsed)
    except _FAULTS as error:
        raise RemoteProtocolError("a certificate is malformed, or not signed by itself") from error
    if not is_current:
        raise RemoteProtocolError("a certificate is not valid at this time")
    key, signature = _proof(extensions)
    key.verify(signature, _SIGNED + spki)
    try:
        return key.peer_id
    except PeerIdError as error:
        raise RemoteProtocolError(str(error)) from None


def _proof(extensions: list[x509.Extension[x509.ExtensionType]]) -> tuple[PublicKey, bytes]:
    """Give the peer's key and its signature."""
    found: x509.ExtensionType | None = None
    for extension in extensions:
        if extension.oid == _EXTENSION:
            found = extension.value
        elif extension.critical:
            raise RemoteProtocolError("a certificate has a critical extension that is not libp2p's")
    if not isinstance(found, x509.UnrecognizedExtension):
        raise RemoteProtocolError("a certificate lacks libp2p's extension")
    content, rest = _element(_SEQUENCE, found.value)
    message, after = _element(_OCTETS, content)
    signature, end = _element(_OCTETS, after)
    if rest or end:
        raise RemoteProtocolError("libp2p's extension has something behind it")
    return PublicKey.decode(message), signature


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _der(tag: int, content: bytes) -> bytes:
    """Encode an element of less than 64 KiB."""
    size = len(content)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    )
    return bytes([tag]) + length + content


def _element(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """Give the content of the first element, which must have a tag, and what follows it."""
    digits = data[1] & 0x7F if len(data) > 1 and data[1] > 0x80 else 0
    size = int.from_bytes(data[2 : 2 + digits]) if digits else data[1] if len(data) > 1 else 0
    content, rest = data[2 + digits : 2 + digits + size], data[2 + digits + size :]
    if digits > 2 or len(content) < size or _der(tag, content) + rest != data:
        raise RemoteProtocolError("libp2p's extension is malformed")
    return content, rest
