"""Dials leave from the port that we listen on, and what peers tell of it is remembered while they are there."""

import socket
from functools import partial

import pytest
import trio
from libp2p.peer.id import ID

from peertunnel.host import Host, HostError, open_host
from peertunnel.identity import Identity
from peertunnel.transport.candidates import Target
from peertunnel.transport.hole import Hole
from peertunnel.transport.tcp import connect
from tests.node.pair import LOOPBACK, PATIENCE, other_address, until


def port_of(host: Host) -> int:
    return int(host.addresses[0].split("/")[4])


async def test_a_dial_leaves_from_the_port_that_we_listen_on_and_is_observed() -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), listen) as server,
        open_host(Identity.ephemeral(), listen) as client,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        assert connection.local_port == port_of(client)
        await until(lambda: client.observed.addresses == (client.addresses[0].rpartition("/p2p/")[0],))
        await connection.close()
        assert not client.observed.addresses


async def test_the_same_way_twice_takes_another_port() -> None:
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), listen) as server,
        open_host(Identity.ephemeral(), listen) as client,
    ):
        first = await client.dial(server.peer_id, server.addresses, PATIENCE)
        second = await client.dial(server.peer_id, server.addresses, PATIENCE)
        assert first.local_port == port_of(client) != second.local_port


async def test_a_port_that_is_listened_on_is_taken_although_dials_share_it() -> None:
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        with pytest.raises(HostError, match="in use"):
            async with open_host(Identity.ephemeral(), (f"/ip4/127.0.0.1/tcp/{port_of(host)}",)):
                pass


async def test_two_that_dial_each_other_in_a_punch_agree_who_is_the_client() -> None:
    """However the two dials meet, in one connection or with one in the other's listener: the roles are as agreed."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), LOOPBACK) as client,
        trio.open_nursery() as nursery,
    ):
        for host, other, is_client in ((server, client, False), (client, server, True)):
            hole = Hole(host.network, None, nursery, ID.from_base58(other.peer_id))
            nursery.start_soon(
                partial(hole.punch, [Target("tcp", ("127.0.0.1", port_of(other)))], 0.0, is_client=is_client)
            )
        await until(lambda: server.connections(client.peer_id) and client.connections(server.peer_id))
        nursery.cancel_scope.cancel()
        (connection,) = client.connections(server.peer_id)
        assert (connection.is_initiator, connection.way.kind) == (True, "punched")
        (connection,) = server.connections(client.peer_id)
        assert (connection.is_initiator, connection.way.kind) == (False, "punched")


async def test_a_connection_that_fails_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = taken.getsockname()
    with pytest.raises(OSError, match="refused"):
        await connect(target)
