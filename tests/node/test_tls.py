"""A TLS session of the data path against a peer that knows the protocol all too well."""

import hmac
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from libp2p.security.tls.transport import TLSTransport

from peertunnel.identity import Identity
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport import buffers
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.tls import MAX_BARREN, TlsChannel
from tests.node.pair import until

UPDATE = 27  # bytes of a record that changes a key
RECORD = 16 * 1024  # bytes of data in the longest record
OVERHEAD = 22  # bytes of it beside them


class Peer:
    """The client's end of a session, which can say what no TLS library says.

    Args:
        sock: blocking.
        secret: from which the client's keys are derived (RFC 8446, 7.2).
    """

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self.sock = sock
        self._secret = secret
        self._records = 0  # sealed with the present key

    def data(self, content: bytes) -> bytes:
        """Give a record of data."""
        return self._record(content + b"\x17")

    def updates(self, count: int, *, wants_answer: bool) -> bytes:
        """Give records that change the client's key, and ask the server to change its own (RFC 8446, 4.6.3)."""
        records = bytearray()
        for _ in range(count):
            records += self._record(bytes([24, 0, 0, 1, wants_answer, 22]))
            self._secret, self._records = self._expand("traffic upd", len(self._secret)), 0
        return bytes(records)

    def _record(self, inner: bytes) -> bytes:
        header = struct.pack("!BHH", 23, 0x0303, len(inner) + 16)
        nonce = int.from_bytes(self._expand("iv", 12)) ^ self._records
        self._records += 1
        return header + AESGCM(self._expand("key", 32)).encrypt(nonce.to_bytes(12), inner, header)

    def _expand(self, label: str, size: int) -> bytes:
        full = f"tls13 {label}".encode()
        info = struct.pack("!HB", size, len(full)) + full + b"\0\1"
        return hmac.digest(self._secret, info, "sha384")[:size]

    async def send(self, data: bytes) -> None:
        """Send, as far as the other end takes it."""
        with suppress(OSError):
            await trio.to_thread.run_sync(self.sock.sendall, data)


@dataclass
class Session:
    """A channel, its peer, and what has come of it."""

    channel: TlsChannel
    peer: Peer
    received: bytearray
    failures: list[Exception]


@asynccontextmanager
async def session(folder: Path) -> AsyncIterator[Session]:
    """Run a channel at the server's end of a session."""
    contexts = [
        TLSTransport(Identity.ephemeral().key_pair).create_ssl_context(side) for side in (False, True)
    ]
    contexts[0].keylog_filename = str(folder / "keys")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(to_client, to_server, server_side=False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = contexts[1].wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(2):
        for end in (client, server):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            incoming.write(to_server.read())
            to_client.write(outgoing.read())
    assert client.cipher()[0] == "TLS_AES_256_GCM_SHA384"  # type: ignore[index]
    (secret,) = [
        bytes.fromhex(line.split()[2])
        for line in (folder / "keys").read_text().splitlines()
        if line.startswith("CLIENT_TRAFFIC_SECRET_0")
    ]
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reactor, received, failures = Reactor(), bytearray(), list[Exception]()
    channel = TlsChannel(ours, reactor, server, incoming, outgoing, b"")

    async def carry() -> None:
        try:
            await channel.run(received.extend, lambda: None)
        except Exception as error:  # noqa: BLE001  what it ends with is looked at
            failures.append(error)

    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            nursery.start_soon(carry)
            yield Session(channel, Peer(theirs, secret), received, failures)
            channel.close()
            nursery.cancel_scope.cancel()


async def test_keys_may_be_changed_at_times(tmp_path: Path) -> None:
    async with session(tmp_path) as it:
        for wants_answer in (True, False, True):
            await it.peer.send(it.peer.updates(5, wants_answer=wants_answer) + it.peer.data(b"data"))
        await until(lambda: it.received == 3 * b"data")
        answered = it.peer.sock.recv(1024 * 1024)
        assert len(answered) > 5 * UPDATE and not it.failures


async def test_who_does_nothing_but_change_keys_is_cut_off(tmp_path: Path) -> None:
    async with session(tmp_path) as it:
        await it.peer.send(it.peer.data(b"data"))
        await until(lambda: it.received)
        await it.peer.send(it.peer.updates(4 * MAX_BARREN // UPDATE, wants_answer=False))
        await until(lambda: it.failures)
        assert isinstance(it.failures[0], RemoteProtocolError)


async def test_what_the_session_answers_to_a_peer_that_reads_nothing_is_bounded(tmp_path: Path) -> None:
    async with session(tmp_path) as it:
        while not it.channel.is_blocked:
            it.channel.send(bytes(RECORD))
        while not it.failures:
            await it.peer.send(it.peer.data(bytes(RECORD)) + it.peer.updates(30, wants_answer=True))
            assert len(it.received) < 200 * RECORD
        assert isinstance(it.failures[0], RemoteProtocolError)
        assert it.channel._outgoing.pending < MAX_BARREN + 2 * RECORD


async def test_what_tls_made_is_never_given_out_as_a_buffer(tmp_path: Path) -> None:
    size = buffers._output_size - OVERHEAD * math.ceil(buffers._output_size / (RECORD + OVERHEAD))
    async with session(tmp_path) as it:
        it.channel.send(bytes(size))
        assert it.channel.is_blocked and it.channel._end == buffers._output_size
        left = it.channel._end
        while left:
            left -= len(await trio.to_thread.run_sync(it.peer.sock.recv, left))
        await until(lambda: not it.channel.is_blocked)
        assert not buffers.take_output(1).readonly
