"""Short connections: whoever asks a peer something shares one, and nobody waits for an address that leads nowhere."""

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.peers import RequestError
from peertunnel.transport import visits
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.node.test_circuits import relay, reserved

REFUSED = "/ip4/127.0.0.1/tcp/1"  # tcpmux: nobody listens there


@asynccontextmanager
async def dead_end() -> AsyncIterator[tuple[Host, Host, str]]:
    """Have a server and a client, and an address at which connections are made and nothing is said."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            yield server, client, f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"


async def visit(client: Host, peer_id: str, places: Sequence[str], within: float) -> None:
    async with client.visit(peer_id, places, within):
        pass


async def is_not_reached(client: Host, peer_id: str, places: Sequence[str], within: float) -> None:
    with pytest.raises(RequestError, match="was not reached: "):
        await visit(client, peer_id, places, within)


async def test_an_address_where_nobody_answers_keeps_nobody_from_another() -> None:
    async with dead_end() as (server, client, nowhere), trio.open_nursery() as nursery:
        nursery.start_soon(visit, client, server.peer_id, [nowhere], 3 * PATIENCE)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            await visit(client, server.peer_id, [nowhere, *server.addresses], 3 * PATIENCE)
            await until(lambda: not nursery.child_tasks)  # who waits at the dead end takes what stands
        assert len(client.connections(server.peer_id)) == 1


async def test_an_address_is_dialled_once_for_all_who_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dead_end() as (server, client, nowhere):
        dialled = []
        dial = client.dial

        async def note(peer_id: str, addresses: Iterable[str], within: float) -> MuxedConnection:
            dialled.append(list(addresses))
            return await dial(peer_id, addresses, within)

        monkeypatch.setattr(client, "dial", note)
        async with trio.open_nursery() as nursery:
            for places in ([nowhere], [f"{nowhere}/p2p/{server.peer_id}"], [nowhere, REFUSED]):
                nursery.start_soon(is_not_reached, client, server.peer_id, places, 0.5)
                await trio.testing.wait_all_tasks_blocked()  # tasks begin in any order
        assert dialled == [[nowhere], [REFUSED]]


async def test_who_gives_up_leaves_the_address_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dead_end() as (server, client, _), trio.open_nursery() as nursery:
        dial = client.dial

        async def hang(peer_id: str, addresses: Iterable[str], within: float) -> MuxedConnection:
            monkeypatch.setattr(client, "dial", dial)
            await trio.sleep_forever()
            raise AssertionError

        monkeypatch.setattr(client, "dial", hang)
        first = trio.CancelScope()

        async def give_up() -> None:
            with first:
                await visit(client, server.peer_id, server.addresses, PATIENCE)

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(visit, client, server.peer_id, server.addresses, PATIENCE)
        await trio.testing.wait_all_tasks_blocked()
        assert client.connections(server.peer_id) == []
        first.cancel()
        await until(lambda: len(client.connections(server.peer_id)) == 1)


async def test_a_peer_of_which_no_address_is_known_is_not_reached() -> None:
    async with dead_end() as (server, client, _):
        await is_not_reached(client, server.peer_id, [], PATIENCE)


async def test_the_connection_to_a_relay_ends_after_the_last_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "LINGER", 0.1)
    async with (
        relay() as (point, _),
        reserved(point) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        (place, *_) = server.addresses
        circuit = await client.dial(server.peer_id, [place], PATIENCE)
        (connection,) = client.connections(point.peer_id)
        await trio.sleep(1)  # some looks at whether it is idle
        assert not connection.is_closed
        await circuit.close()
        await until(lambda: connection.is_closed)
