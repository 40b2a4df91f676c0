"""Floods of datagrams at a real provider over QUIC: open tunnels go on, and the honest still come in."""

import random
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from peertunnel.transport.quic import why_not
from tests.attacks.test_attacks import PATIENCE, resident
from tests.clock import soon
from tests.interop.peers import Running, pt, running
from tests.interop.tunnels import address_over
from tests.node.pair import target
from tests.tools import lack

PACE = {"garbage": 10_000, "handshakes": 2_000}  # datagrams a second
_KINDS = 3000  # different ones, over and over
_SIZES = (20, 64, 600, 1300)  # bytes
_STRANGER = Path(__file__).with_name("datagrams.py")
_ID = ("--id", "flooded-9f8c3f3a1d5be07c42ad")
_QUIC = ("--transport", "quic", "--p2p-listen", "/ip4/127.0.0.1/udp/0/quic-v1")
_ECHOES = 200
_PAUSE = 0.02  # seconds between echoes: they take four seconds of the flood
_SLOWEST = 1.0  # seconds
_BULK = bytes(range(256)) * 4096 * 16  # bytes: 16 MiB
_GROWTH = 64 << 20  # bytes; 256 unfinished handshakes, and what a tunnel needs


def _garbage() -> Iterator[bytes]:
    """Make datagrams that mean nothing, half of which look like QUIC's at first sight."""
    chance = random.Random(0)
    for at in range(_KINDS):
        noise = chance.randbytes(chance.choice(_SIZES))
        yield bytes([noise[0] | 0xC0]) + b"\0\0\0\1" + noise[5:] if at % 2 else noise


def _handshakes() -> Iterator[bytes]:
    """Make the first datagrams of handshakes that never go on."""
    from tests.node.quic_network import SERVER, engine

    client = engine(0, is_server=False)
    for _ in range(_KINDS):
        client.connect(SERVER, 0.0)
    while batch := client.transmit(1, 0.0):
        yield batch[0]


async def _open(consumer: Running) -> trio.SocketStream:
    _, _, port = (await consumer.event("listening"))["local"].rpartition(":")
    return await trio.open_tcp_stream("127.0.0.1", int(port))


async def _echo(stream: trio.SocketStream, data: bytes) -> bytes:
    """Send, and receive as much."""
    came = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        while len(came) < len(data):
            part = await stream.receive_some()
            assert part, "cut"
            came += part
    return bytes(came)


async def _send_back(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.mark.parametrize("kind", list(PACE))
async def test_a_flood_of_datagrams_disturbs_nobody(kind: str, tmp_path: Path) -> None:
    if reason := why_not():
        lack(reason)
    made, file = _garbage() if kind == "garbage" else _handshakes(), tmp_path / "datagrams"
    file.write_text("\n".join(data.hex() for data in made))
    stranger_command = [sys.executable, str(_STRANGER), str(file), str(PACE[kind])]
    async with (
        target(_send_back) as port,
        pt(tmp_path / "victim", *_QUIC, "tcp", "--port", str(port), *_ID) as victim,
    ):
        address = address_over("/quic-v1/", await victim.event("ready"))
        host, udp_port = address.split("/")[2], address.split("/")[4]
        consume = (*_QUIC, "bind", "--port", "0", *_ID, "--peer", address)
        async with pt(tmp_path / "honest", *consume) as consumer, await _open(consumer) as stream:
            assert await _echo(stream, b"before") == b"before"
            before = resident(victim)
            async with running([*stranger_command, host, udp_port]) as stranger:
                await stranger.event("flooding")
                for _ in range(_ECHOES):
                    async with soon(_SLOWEST):
                        assert await _echo(stream, b"?") == b"?"
                    await trio.sleep(_PAUSE)
                with trio.fail_after(PATIENCE):
                    assert sha256(await _echo(stream, _BULK)).digest() == sha256(_BULK).digest()
                    async with pt(tmp_path / "newcomer", *consume) as other, await _open(other) as newcomer:
                        assert await _echo(newcomer, b"hello") == b"hello"
            assert resident(victim) - before < _GROWTH
        assert "Traceback" not in str(victim)
