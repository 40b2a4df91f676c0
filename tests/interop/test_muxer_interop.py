"""Who names yamux in the Noise handshake: go-libp2p does, rust-libp2p does not, and both get on with us."""

from pathlib import Path

import pytest
import trio

from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.transport.noise_security import Noise, NoiseSession
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.upgrade import YAMUX
from tests.interop.tunnels import foreign_consumer, foreign_provider, tcp_address
from tests.node.pair import LOOPBACK, PATIENCE


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What each handshake of ours has come to."""
    found: list[str | None] = []
    secure = Noise.secure

    async def note(self: Noise, raw: RawSocket, peer_id: str | None) -> NoiseSession:
        session = await secure(self, raw, peer_id)
        found.append(session.muxer)
        return session

    monkeypatch.setattr(Noise, "secure", note)
    return found


@pytest.fixture(params=["go", "rust"])
def make(request: pytest.FixtureRequest, gopeer: Path, rspeer: Path) -> tuple[Path, str | None]:
    """A peer, and what it makes of our offer."""
    return (gopeer, YAMUX) if request.param == "go" else (rspeer, None)


async def test_as_who_calls(make: tuple[Path, str | None], chosen: list[str | None]) -> None:
    peer, muxer = make
    async with (
        foreign_provider(peer, "--transport", "noise")("127.0.0.1:9") as provider,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        address = tcp_address(await provider.event("ready"))
        connection = await client.dial(address.rpartition("/")[2], [address], PATIENCE)
        assert await connection.ping() >= 0
    assert chosen == [muxer]


async def test_as_who_is_called(make: tuple[Path, str | None], chosen: list[str | None]) -> None:
    peer, muxer = make
    stands = trio.Event()
    async with open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server:
        server.watch(lambda connection: stands.set())
        async with foreign_consumer(peer, "--transport", "noise")(server.addresses[0]):
            with trio.fail_after(PATIENCE):
                await stands.wait()
                (connection,) = server.all_connections()
                assert await connection.ping() >= 0
    assert chosen == [muxer]
