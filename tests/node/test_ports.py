"""Dials leave from the port that we listen on, and what peers tell of it is remembered while they are there."""

import socket
from functools import partial

import pytest
import trio
from libp2p.peer.id import ID

import peertunnel.host
from peertunnel import sockets
from peertunnel.errors import NotFound
from peertunnel.host import Host, HostError, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.circuit import HOP
from peertunnel.transport import witnesses
from peertunnel.transport.candidates import Target
from peertunnel.transport.hole import Hole
from peertunnel.transport.identify import request
from peertunnel.transport.tcp import connect
from peertunnel.transport.wire import SocketChannel
from peertunnel.transport.yamux import YamuxConnection
from tests.node.pair import LOOPBACK, PATIENCE, other_address, until
from tests.node.pushes import news, push


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


async def test_a_peer_that_fell_silent_does_not_hold_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would go on sending to it for minutes, and refuse the same way to the next dial."""
    monkeypatch.setattr(peertunnel.host, "CHECK", 0.2)
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), listen, "tcp") as server,
        open_host(Identity.ephemeral(), listen, "tcp") as client,
    ):
        first = await client.dial(server.peer_id, server.addresses, PATIENCE)
        await until(lambda: server.connections(client.peer_id))
        (silent,) = server.connections(client.peer_id)
        assert isinstance(silent, YamuxConnection) and isinstance(silent._channel, SocketChannel)
        silent._channel._registration.wait_for(0)
        await client.check()
        assert (first.is_closed, first.reason) == (True, "connection lost: the peer did not answer")
        again = await client.dial(server.peer_id, server.addresses, PATIENCE)
        assert again.local_port == port_of(client)


async def test_a_peer_that_answers_late_but_takes_what_we_send_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peertunnel.host, "CHECK", 0.1)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as client,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        await connection.measured()  # by a ping of its own
        looks = list[bool]()

        def progressed() -> bool:
            looks.append(len(looks) < 3)
            return looks[-1]

        monkeypatch.setattr(connection, "_progressed", progressed)
        monkeypatch.setattr(connection, "_send_ping", lambda: None)
        await client.check()
        assert connection.is_closed and looks == [True, True, True, False]


async def test_a_dial_that_fails_does_not_hold_the_port() -> None:
    host = other_address()
    async with open_host(Identity.ephemeral(), (f"/ip4/{host}/tcp/0",), "tcp") as client:
        with socket.create_server((host, 0), reuse_port=True) as mute:
            port, identity = mute.getsockname()[1], Identity.ephemeral()
            with pytest.raises(NotFound):
                await client.dial(identity.peer_id, [f"/ip4/{host}/tcp/{port}"], 0.2)
            taken, _ = mute.accept()
        with taken:
            async with open_host(identity, (f"/ip4/{host}/tcp/{port}",), "tcp") as server:
                connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
                assert connection.local_port == port_of(client)


@pytest.mark.parametrize("tells", ["at once", "later"])
async def test_a_relay_that_does_not_see_our_port_is_called_again_from_it(
    monkeypatch: pytest.MonkeyPatch, tells: str
) -> None:
    monkeypatch.setattr(witnesses, "PAUSE", 0.1)
    listen = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), listen, "tcp") as relay,
        open_host(Identity.ephemeral(), listen, "tcp") as host,
    ):
        if tells == "at once":
            relay.serve(HOP, lambda stream: stream.abort())
        (source,) = host.network.tcp.sources.values()
        obstacle = await connect((other_address(), port_of(relay)), source)
        connection = await host.dial(relay.peer_id, relay.addresses, PATIENCE)
        assert connection.local_port != port_of(host)
        if tells == "later":
            assert HOP not in (await request(connection)).protocols
            await push(relay, host, news(relay, HOP))
        await until(lambda: len(relay.connections(host.peer_id)) > 1)
        assert not host.observed.addresses
        sockets.abort(obstacle)
        await until(lambda: host.observed.addresses == (host.addresses[0].rpartition("/p2p/")[0],))


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
