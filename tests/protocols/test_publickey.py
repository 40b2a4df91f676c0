"""Public keys: those that cost much to check are refused, whoever they belong to."""

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.publickey import PublicKey

RSA = 0


def signed(key: rsa.RSAPrivateKey) -> tuple[PublicKey, bytes]:
    """Give an RSA key's public half, and its signature of b"data"."""
    encoded = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(RSA, encoded), key.sign(b"data", padding.PKCS1v15(), SHA256())


def swapped(key: rsa.RSAPrivateKey) -> rsa.RSAPrivateKey:
    """Let the exponents change places: whoever signs has the small one then, and whoever checks the large one."""
    private = key.private_numbers()
    public, small = private.public_numbers, private.public_numbers.e
    rest = rsa.rsa_crt_dmp1(small, private.p), rsa.rsa_crt_dmq1(small, private.q), private.iqmp
    numbers = rsa.RSAPrivateNumbers(
        private.p, private.q, small, *rest, rsa.RSAPublicNumbers(private.d, public.n)
    )
    return numbers.private_key()


def test_rsa_with_a_huge_exponent_is_refused() -> None:
    usual = rsa.generate_private_key(65537, 1024)
    key, signature = signed(usual)
    key.verify(signature, b"data")
    key, signature = signed(swapped(usual))
    with pytest.raises(RemoteProtocolError, match="too large"):
        key.verify(signature, b"data")
