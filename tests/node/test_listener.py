"""Listening for peers: bursts, silent strangers and hostile bytes cost the others nothing."""

import os
import socket

import pytest
import trio

from peertunnel.host import HostError, open_host
from peertunnel.identity import Identity
from peertunnel.transport import handshakes
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import LOOPBACK, PATIENCE, until


def connect(address: str) -> socket.socket:
    parts = address.split("/")
    return socket.create_connection((parts[2], int(parts[4])), timeout=PATIENCE)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xff" * 200,
        os.urandom(4096),
    ],
)
async def test_hostile_bytes_end_their_own_connection_only(garbage: bytes) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        good = await client.dial(server.peer_id, server.addresses, PATIENCE)
        with connect(server.addresses[0]) as stranger:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            with trio.fail_after(PATIENCE):
                await trio.to_thread.run_sync(_read_to_the_end, stranger)
        assert await good.ping() >= 0


def _read_to_the_end(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


async def test_silent_strangers_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 4)
    monkeypatch.setattr(handshakes, "HANDSHAKE_PATIENCE", 0.1)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        strangers = [connect(server.addresses[0]) for _ in range(12)]
        with trio.fail_after(PATIENCE / 2):  # their handshakes would take 10 s each, four at a time
            await client.dial(server.peer_id, server.addresses, PATIENCE)
        for stranger in strangers:
            stranger.close()


async def test_a_peer_at_which_something_fails_locks_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as unlucky,
        open_host(Identity.ephemeral(), (), "tcp") as client,
    ):

        def look(connection: MuxedConnection) -> None:
            if str(connection.peer_id) == unlucky.peer_id:
                raise KeyError("unforeseen")

        server.watch(look)
        await unlucky.dial(server.peer_id, server.addresses, PATIENCE)
        await until(lambda: "unforeseen" in caplog.text)
        await client.dial(server.peer_id, server.addresses, PATIENCE)


async def test_a_burst_is_served_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 4)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(40):
            nursery.start_soon(client.dial, server.peer_id, server.addresses, PATIENCE)


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.0.2.77/tcp/0",
        "/ip4/192.0.2.77/udp/0/quic-v1",
        "/ip4/127.0.0.1",
        "nonsense",
        "/ip4/300.1.1.1/tcp/0",
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_one_sentence(address: str) -> None:
    with pytest.raises(HostError) as failure:
        async with open_host(Identity.ephemeral(), (address,)):
            pass
    assert address in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(HostError, match="in use"):
        async with open_host(Identity.ephemeral(), (f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}",)):
            pass
