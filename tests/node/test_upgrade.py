"""Securing connections: what it costs in flights, and whom it refuses."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from libp2p.peer.id import ID

from peertunnel.identity import Identity
from peertunnel.protocols.certificate import _der
from peertunnel.protocols.multistream import GREETING
from peertunnel.protocols.noise import Cipher, Sealer
from peertunnel.protocols.protobuf import encode_message
from peertunnel.transport import noise_security
from peertunnel.transport.ciphers import fastest_cipher
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.stranger import Nobody
from peertunnel.transport.tls_security import Tls, _load
from peertunnel.transport.upgrade import YAMUX, UpgradeError, Upgrader
from peertunnel.transport.way import PUNCHED
from tests.node.pair import PATIENCE

CLIENT, SERVER = Identity.ephemeral(), Identity.ephemeral()
DAY = timedelta(days=1)
NOISE, TLS = "/noise", "/tls/1.0.0"
CPUINFO = Path("/proc/cpuinfo")


@asynccontextmanager
async def reactor() -> AsyncIterator[Reactor]:
    running = Reactor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        yield running
        nursery.cancel_scope.cancel()


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def upgrade(
    client: Upgrader, server: Upgrader, wanted: str = SERVER.peer_id
) -> tuple[MuxedConnection, MuxedConnection]:
    """Secure both ends of a connection, and have them answer a ping."""
    near, far = connected()
    found: list[MuxedConnection] = []

    async def accept() -> None:
        found.append(await server.upgrade(far, None, is_client=False))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            found.append(await client.upgrade(near, ID.from_base58(wanted), is_client=True))
    ours, theirs = sorted(found, key=lambda connection: not connection.is_initiator)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.start)
        nursery.start_soon(theirs.start)
        with trio.fail_after(PATIENCE):
            await ours.event_started.wait()
            await ours.ping()
        nursery.start_soon(theirs.close)
        await ours.close()
    return ours, theirs


@pytest.mark.parametrize(
    ("clients", "servers", "flights"),
    [((YAMUX,), (YAMUX,), 5), ((), (YAMUX,), 6), ((YAMUX,), (), 6), (("/mplex/6.7.0",), (YAMUX,), 6)],
)
async def test_naming_yamux_in_the_handshake_saves_the_round_trip(
    clients: Sequence[str], servers: Sequence[str], flights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is agreed on in two flights and takes three; yamux then waits for nothing, or for another answer."""
    turns: list[bool] = []
    write = RawSocket.write

    async def count(self: RawSocket, data: bytes) -> None:
        if turns[-1:] != [self.is_initiator]:
            turns.append(self.is_initiator)
        await write(self, data)

    monkeypatch.setattr(RawSocket, "write", count)
    async with reactor() as running:
        ours, theirs = await upgrade(
            Upgrader(CLIENT, running, Nobody(), clients), Upgrader(SERVER, running, Nobody(), servers)
        )
    assert (str(ours.peer_id), str(theirs.peer_id)) == (SERVER.peer_id, CLIENT.peer_id)
    assert len(turns) == flights


async def test_tls_is_agreed_on_where_noise_is_refused() -> None:
    async with reactor() as running:
        client, server = (Upgrader(who, running, Nobody()) for who in (CLIENT, SERVER))
        server._securities = {TLS: Tls(SERVER)}
        ours, theirs = await upgrade(client, server)
    assert (str(ours.peer_id), str(theirs.peer_id)) == (SERVER.peer_id, CLIENT.peer_id)


@pytest.mark.parametrize("protocol", [NOISE, TLS])
async def test_somebody_else_is_not_shown_who_calls(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    write = RawSocket.write

    async def keep(self: RawSocket, data: bytes) -> None:
        if self.is_initiator:
            sent.append(data)
        await write(self, data)

    monkeypatch.setattr(RawSocket, "write", keep)
    near, far = connected()
    async with reactor() as running, trio.open_nursery() as nursery:
        server = Upgrader(SERVER, running, Nobody())
        server._securities = {protocol: server._securities[protocol]}

        async def accept() -> None:
            with pytest.raises(UpgradeError):
                await server.upgrade(far, None, is_client=False)

        nursery.start_soon(accept)
        with pytest.raises(UpgradeError, match=f"the peer is {SERVER.peer_id}"):
            await Upgrader(CLIENT, running, Nobody()).upgrade(
                near, ID.from_base58(Identity.ephemeral().peer_id), is_client=True
            )
    begun = sent[1:] if protocol == NOISE else sent[2:]  # it was asked for first, in vain
    assert len(begun) == 1, "more than the first message went out"
    size = int.from_bytes(begun[0][:2]) + 2 if protocol == NOISE else int.from_bytes(begun[0][3:5]) + 5
    assert len(begun[0]) == size, "more than its first message went out"


@pytest.mark.parametrize("protocol", [NOISE, TLS])
async def test_somebody_else_who_calls_is_refused(protocol: str) -> None:
    """As where two dials have crossed, and the roles of the handshake are agreed on."""
    near, far = connected()
    async with reactor() as running, trio.open_nursery() as nursery:
        server = Upgrader(SERVER, running, Nobody())
        server._securities = {protocol: server._securities[protocol]}

        async def call() -> None:
            caller = Upgrader(CLIENT, running, Nobody())
            try:
                connection = await caller.upgrade(near, ID.from_base58(SERVER.peer_id), is_client=True)
            except UpgradeError:
                return
            await connection.close()  # Noise has no word for it that the caller is refused

        nursery.start_soon(call)
        with pytest.raises(UpgradeError, match=f"the peer is {CLIENT.peer_id}"):
            await server.upgrade(far, ID.from_base58(Identity.ephemeral().peer_id), is_client=False)


@pytest.mark.parametrize(("bits", "why"), [(16_384, "too large"), (2**18, "at most 16384 bytes")])
async def test_a_caller_with_a_key_that_costs_time_is_refused_before_it_is_used(bits: int, why: str) -> None:
    near, far = connected()
    async with reactor() as running, trio.open_nursery() as nursery:
        server, caller = (Upgrader(who, running, Nobody()) for who in (SERVER, CLIENT))
        server._securities, caller._securities = {TLS: Tls(SERVER)}, {TLS: (tls := Tls(CLIENT))}
        tls._library = _load(CLIENT)
        tls._library._cert_pem, tls._library._key_pem = certificate_of_rsa(bits)

        async def call() -> None:
            with pytest.raises(UpgradeError):
                await caller.upgrade(near, ID.from_base58(SERVER.peer_id), is_client=True)

        nursery.start_soon(call)
        with pytest.raises(UpgradeError, match=why):
            await server.upgrade(far, None, is_client=False)


def certificate_of_rsa(bits: int) -> tuple[str, str]:
    """Give a certificate of a peer whose key is this large, which did not sign it, and the certificate's key, as PEM."""
    peer = rsa.RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    encoded = peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    proof = _der(0x30, _der(0x04, encode_message([(1, 0), (2, encoded)])) + _der(0x04, b"no signature"))
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - DAY, now + DAY)
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1"), proof)
    certificate = builder.add_extension(extension, critical=False).sign(key, SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), secret.decode()


async def test_who_speaks_neither_is_refused() -> None:
    near, far = connected()
    async with reactor() as running, trio.open_nursery() as nursery:

        async def refuse() -> None:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            async with stream:
                await stream.send_all(b"\x13/multistream/1.0.0\n\x03na\n\x03na\n")
                with suppress(trio.BrokenResourceError):  # a dial that fails is reset
                    while await stream.receive_some():
                        pass

        nursery.start_soon(refuse)
        with pytest.raises(UpgradeError, match=r"speaks none of /noise, /tls/1\.0\.0"):
            await Upgrader(CLIENT, running, Nobody()).upgrade(
                near, ID.from_base58(SERVER.peer_id), is_client=True
            )


@pytest.mark.parametrize("servers", Cipher)
@pytest.mark.parametrize("clients", Cipher)
async def test_both_ends_seal_with_the_same_cipher(
    clients: Cipher, servers: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Cipher] = []

    class Noted(Sealer):
        def __init__(self, key: bytes, *, cipher: Cipher) -> None:
            used.append(cipher)
            super().__init__(key, cipher=cipher)

    monkeypatch.setattr(noise_security, "Sealer", Noted)
    async with reactor() as running:
        monkeypatch.setattr(noise_security, "fastest_cipher", lambda: clients)
        client = Upgrader(CLIENT, running, Nobody())
        monkeypatch.setattr(noise_security, "fastest_cipher", lambda: servers)
        await upgrade(client, Upgrader(SERVER, running, Nobody()))
    wanted = Cipher.AES_GCM if clients is servers is Cipher.AES_GCM else Cipher.CHACHA_POLY
    assert used == [wanted, wanted]


@pytest.mark.skipif(not CPUINFO.exists(), reason="the system does not tell what the processor can")
def test_the_faster_cipher_is_wanted() -> None:
    """AES-GCM is several times faster where the processor has instructions for it, on x86 or ARM, and slower elsewhere."""
    can = set(CPUINFO.read_text().split())
    is_quick = {"aes", "pclmulqdq"} <= can or {"aes", "pmull"} <= can
    assert fastest_cipher() is (Cipher.AES_GCM if is_quick else Cipher.CHACHA_POLY)


async def test_behind_a_hole_the_server_speaks_first() -> None:
    """Its data acknowledges the peer's SYN, and is sent again where an ACK alone would have got lost."""
    near, far = connected()
    async with reactor() as running, trio.open_nursery() as nursery:
        client, server = Upgrader(CLIENT, running, Nobody()), Upgrader(SERVER, running, Nobody())
        found: list[MuxedConnection] = []

        async def accept() -> None:
            found.append(await server.upgrade(far, None, is_client=False, way=PUNCHED))

        nursery.start_soon(accept)
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(near.fileno())
            assert near.recv(1024, socket.MSG_PEEK) == GREETING
            found.append(await client.upgrade(near, ID.from_base58(SERVER.peer_id), is_client=True))
            while len(found) < 2:
                await trio.lowlevel.checkpoint()
        for connection in found:
            await connection.close()
