"""A relay that speaks two transports is called over both, so that it tells of both our ports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr

from peertunnel import reach
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.circuit import HOP
from peertunnel.transport import witnesses
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import PATIENCE, other_address, until
from tests.tools import need_quic

ELSEWHERE = "/ip4/192.0.2.1/tcp/4001"


@pytest.fixture(autouse=True)
def quic() -> None:
    need_quic()


@asynccontextmanager
async def relay() -> AsyncIterator[Host]:
    """Run what says that it is a relay, which is all that counts here."""
    async with open_host(Identity.ephemeral(), (f"/ip4/{other_address()}/tcp/0",)) as host:
        host.serve(HOP, lambda stream: stream.abort())
        yield host


def places(host: Host) -> set[str]:
    return {address.rpartition("/p2p/")[0] for address in host.addresses}


async def lose_witness(point: Host, host: Host, connection: MuxedConnection) -> None:
    """Close the other connection of a host to a relay."""
    seen = connection.get_transport_addresses()[0]
    (other,) = [
        theirs
        for theirs in point.connections(host.peer_id)
        if ("tcp" in theirs.get_transport_addresses()[0]) != ("tcp" in seen)
    ]
    await other.close()


@pytest.mark.parametrize("first", ["tcp", "udp"])
async def test_both_ports_are_known(first: str) -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with relay() as point, open_host(Identity.ephemeral(), listen) as host:
        addresses = [address for address in point.addresses if f"/{first}/" in address]
        connection = await host.dial(point.peer_id, addresses, PATIENCE)
        await until(lambda: set(host.observed.addresses) == places(host))
        assert host.connections(point.peer_id) == [connection], "nobody else uses the other one"
        assert len(point.connections(host.peer_id)) == 2
        await connection.close()
        await until(lambda: not point.connections(host.peer_id))
        assert not host.observed.addresses


async def test_a_witness_that_is_lost_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "PAUSE", 0.1)
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with relay() as point, open_host(Identity.ephemeral(), listen) as host:
        connection = await host.dial(point.peer_id, point.addresses, PATIENCE)
        await until(lambda: len(point.connections(host.peer_id)) == 2)
        await lose_witness(point, host, connection)
        await until(lambda: len(host.observed.addresses) == 1)
        await until(lambda: len(host.observed.addresses) == 2)


async def test_a_peer_that_is_no_relay_is_called_once() -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), listen) as peer,
        open_host(Identity.ephemeral(), listen) as host,
    ):
        await host.dial(peer.peer_id, peer.addresses, PATIENCE)
        await until(lambda: host.observed.addresses)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert len(peer.connections(host.peer_id)) == 1


async def test_where_we_are_is_asked_again_when_the_network_has_changed() -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with relay() as point, open_host(Identity.ephemeral(), listen) as host:
        connection = await host.dial(point.peer_id, point.addresses, PATIENCE)
        await until(lambda: set(host.observed.addresses) == places(host))
        await lose_witness(point, host, connection)
        await until(lambda: len(host.observed.addresses) == 1)
        await trio.testing.wait_all_tasks_blocked()
        host.observed.note(connection, Multiaddr(ELSEWHERE).to_bytes())
        await host.note_changed_network()
        await until(lambda: set(host.observed.addresses) == places(host))


async def test_where_we_are_is_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "LOOK", 0.05)
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        relay() as point,
        open_host(Identity.ephemeral(), listen) as host,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(reach.Reach(host).run)
        connection = await host.dial(point.peer_id, point.addresses, PATIENCE)
        await until(lambda: set(host.observed.addresses) == places(host))
        host.observed.note(connection, Multiaddr(ELSEWHERE).to_bytes())
        await until(lambda: set(host.observed.addresses) == places(host))
        nursery.cancel_scope.cancel()
