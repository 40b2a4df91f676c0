"""Dialling: every address counts, the wrong peer never wins, and yesterday's failure is forgotten."""

import socket
from functools import partial
from typing import Any, NoReturn

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from multiaddr import Multiaddr

from peertunnel.errors import NotFound
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dialer import dial
from peertunnel.transport.race import Attempt, Race
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.tcp import connect, is_tcp
from peertunnel.transport.yamux import YamuxConnection
from tests.node.pair import LOOPBACK, PATIENCE, until, yamux_of

PEER = "12D3KooWR2LXNYrEfUd1QV6xJz7YgZuigfgfdwScTLdfywJLuh5N"
BOTH = ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0")


def silent() -> socket.socket:
    """Listen and never answer."""
    return socket.create_server(("127.0.0.1", 0))


def address_of(sock: socket.socket) -> str:
    return f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"


async def test_one_good_address_among_dead_and_silent_ones_is_enough() -> None:
    with silent() as sock:
        async with (
            open_host(Identity.ephemeral(), LOOPBACK) as server,
            open_host(Identity.ephemeral(), ()) as client,
        ):
            addresses = [
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/127.0.0.1/udp/1/quic-v1",
                address_of(sock),
                *server.addresses,
            ]
            with trio.fail_after(5):  # the silent one alone would take 10 s
                connection = await client.dial(server.peer_id, addresses, PATIENCE)
            assert str(connection.peer_id) == server.peer_id


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/127.0.0.1/udp/1/quic-v1/webtransport/certhash/zzz",
        "/ip4/127.0.0.1/tcp/1/tls/sni/_",
        "/ip4/127.0.0.1/tcp/1/ip6zone/x",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/ws/p2p-circuit",
        "/p2p-circuit",
        "/dns4/\u05d01.example/tcp/1",  # right to left with a digit at its end: well-formed since IDNA 2008
    ],
)
async def test_an_address_that_makes_no_sense_costs_nothing(address: str) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        with pytest.raises(NotFound):
            await client.dial(server.peer_id, [f"{address}/p2p/{server.peer_id}"], PATIENCE)
        await client.dial(server.peer_id, [f"{address}/p2p/{server.peer_id}", *server.addresses], PATIENCE)


async def test_an_attempt_that_fails_unforeseen_is_one_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def attempt() -> NoReturn:
        raise KeyError("unforeseen")

    race = Race()
    await race.run([Attempt(Multiaddr("/ip4/192.0.2.1/tcp/1"), attempt)])
    assert race.winner is None and race.reasons == [("/ip4/192.0.2.1/tcp/1", "'unforeseen'")]
    assert "/ip4/192.0.2.1/tcp/1" in caplog.text


async def test_a_name_server_that_does_not_answer_holds_nobody_up() -> None:
    class Silent(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object) -> NoReturn:
            await trio.sleep_forever()
            raise AssertionError

        async def getnameinfo(self, *args: object) -> NoReturn:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Silent())
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        addresses = ["/dns4/example.org/tcp/1", *server.addresses, "/dns/example.net/tcp/1"]
        with trio.fail_after(PATIENCE / 2):
            connection = await client.dial(server.peer_id, addresses, PATIENCE)
        assert str(connection.peer_id) == server.peer_id


@pytest.mark.parametrize("family", [0, 1])
async def test_both_families_listen_on_one_port_and_can_be_dialled(family: int) -> None:
    async with open_host(Identity.ephemeral(), BOTH) as server, open_host(Identity.ephemeral(), ()) as client:
        addresses = [address for address in server.addresses if "/tcp/" in address]
        assert len({Multiaddr(address).value_for_protocol("tcp") for address in addresses}) == 1
        connection = await client.dial(server.peer_id, [addresses[family]], PATIENCE)
        assert connection.get_remote_address() is not None
        await until(lambda: server.connections(client.peer_id))
        (seen,) = server.connections(client.peer_id)
        assert str(seen.get_transport_addresses()[0]).startswith(["/ip4/127.0.0.1/", "/ip6/::1/"][family])


async def test_another_peer_at_the_address_is_refused_and_the_right_one_still_found() -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as stranger,
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        reused = stranger.addresses[0].replace(stranger.peer_id, server.peer_id)
        with pytest.raises(NotFound):
            await client.dial(server.peer_id, [reused], PATIENCE)
        connection = await client.dial(server.peer_id, [reused, *server.addresses], PATIENCE)
        assert str(connection.peer_id) == server.peer_id


async def test_a_peer_that_was_away_is_dialled_again_at_once() -> None:
    identity = Identity.ephemeral()
    async with open_host(Identity.ephemeral(), ()) as client:
        async with open_host(identity, LOOPBACK) as server:
            addresses = server.addresses
        with pytest.raises(NotFound):
            await client.dial(identity.peer_id, addresses, PATIENCE)
        async with open_host(identity, (addresses[0].rpartition("/p2p/")[0],)) as server:
            with trio.fail_after(4):
                await client.dial(server.peer_id, addresses, PATIENCE)


async def test_a_dial_ends_at_its_deadline() -> None:
    with silent() as sock:
        async with open_host(Identity.ephemeral(), ()) as client:
            began = trio.current_time()
            with pytest.raises(NotFound):
                await client.dial(Identity.ephemeral().peer_id, [address_of(sock)], 0.3)
            assert trio.current_time() - began < 5  # a handshake may take 10 s


async def test_of_two_attempts_that_win_at_once_one_is_closed() -> None:
    go, race = trio.Event(), Race()
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as client,
    ):

        async def stand() -> YamuxConnection:
            sock = await connect(("127.0.0.1", int(server.listening[0].rpartition("/")[2])))
            peer_id = ID.from_base58(server.peer_id)
            return yamux_of(await client.network.upgrader.upgrade(sock, peer_id, is_client=True))

        async def attempt(connection: YamuxConnection) -> YamuxConnection:
            await go.wait()
            return connection

        both = [await stand(), await stand()]
        attempts = [Attempt(Multiaddr(server.listening[0]), partial(attempt, one)) for one in both]
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(race.run, attempts)
                await until(lambda: go.statistics().tasks_waiting == 2)
                go.set()
        (loser,) = (connection for connection in both if connection is not race.winner)
        assert loser.is_closed and loser._raw.sock.fileno() == -1
        assert race.winner is not None and not race.winner.is_closed
        await race.winner.close()


async def test_a_dial_that_is_cancelled_as_it_is_won_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    winners: list[MuxedConnection | None] = []
    attempt_once = Race._attempt

    async def attempt(race: Race, *details: Any) -> None:
        await attempt_once(race, *details)
        winners.append(race.winner)
        scope.cancel()

    monkeypatch.setattr(Race, "_attempt", attempt)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as client,
    ):
        with trio.CancelScope() as scope:
            await client.dial(server.peer_id, server.addresses, PATIENCE)
        (winner,) = winners
        assert winner is not None and winner.is_closed


async def test_a_node_does_not_dial_itself() -> None:
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        with pytest.raises(NotFound, match="this very node"):
            await host.dial(host.peer_id, host.addresses, PATIENCE)


async def test_a_handler_that_fails_ends_its_stream_and_not_the_connection() -> None:
    def fail(stream: MuxedStream) -> None:
        raise KeyError("unforeseen")

    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        server.serve("/fails/1.0.0", fail)
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        stream = await connection.open_tunnel("/fails/1.0.0")
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            await stream.read()
        await connection.ping()


async def test_a_stream_that_comes_as_a_host_ends_is_refused_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What would answer it has ended before its connection is closed."""
    asked, close = list[MuxedStream](), Host.close

    async def ask_and_close(host: Host, *details: float) -> None:
        if host is server and not asked:
            asked.append(await connection.open_tunnel("/ipfs/id/1.0.0"))
            with pytest.raises(MuxedStreamReset), trio.fail_after(PATIENCE):
                await asked[0].read()
        await close(host, *details)

    monkeypatch.setattr(Host, "close", ask_and_close)
    async with (
        open_host(Identity.ephemeral(), ()) as client,
        open_host(Identity.ephemeral(), LOOPBACK) as server,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
    assert asked and not caplog.records


async def test_a_task_in_the_background_that_fails_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(what: str) -> None:
        raise KeyError(what)

    async with open_host(Identity.ephemeral(), LOOPBACK) as server:
        server.start_soon(fail, "unforeseen")
        await until(lambda: "unforeseen" in caplog.text)
        async with open_host(Identity.ephemeral(), ()) as client:
            await client.dial(server.peer_id, server.addresses, PATIENCE)


async def test_who_no_longer_waits_for_connections_is_told_of_none() -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as server,
        open_host(Identity.ephemeral(), (), "tcp") as client,
        trio.open_nursery() as nursery,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)

        async def look(done: trio.Event) -> None:
            async with client.newcomers(server.peer_id):
                pass
            done.set()

        for _ in range(20):  # as the order of the tasks is random
            nursery.start_soon(look, done := trio.Event())
            while not done.is_set():
                for watcher in client.network.watchers:
                    watcher(connection)
                await trio.lowlevel.checkpoint()


async def test_pings_come_back() -> None:
    """One after the other on one stream, for as long as the peer likes."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        stream = await (await client.dial(server.peer_id, server.addresses, PATIENCE)).open_tunnel(
            "/ipfs/ping/1.0.0"
        )
        with trio.fail_after(PATIENCE):
            for number in range(3):
                await stream.write(bytes([number]) * 32)
                assert await stream.read() == bytes([number]) * 32


@pytest.mark.parametrize(
    ("address", "dialable"),
    [
        ("/ip4/192.0.2.1/tcp/1", True),
        ("/ip6/2001:db8::1/tcp/1", True),
        ("/dns4/example.org/tcp/1", True),
        ("/ip4/192.0.2.1/udp/1/quic-v1", False),
        ("/ip4/192.0.2.1/tcp/1/ws", False),
        (f"/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit", False),
    ],
)
def test_only_what_tcp_can_dial_is_tried(address: str, dialable: bool) -> None:
    assert is_tcp(Multiaddr(address)) is dialable


async def test_an_error_inside_a_running_host_comes_out() -> None:
    with pytest.raises(ExceptionGroup) as failure:
        async with open_host(Identity.ephemeral(), LOOPBACK):
            raise KeyError("of the caller")
    assert failure.group_contains(KeyError)


async def test_a_host_can_be_closed_at_once() -> None:
    async with open_host(Identity.ephemeral(), LOOPBACK):
        pass


async def test_who_gives_up_as_a_connection_comes_to_stand_leaves_none_that_nobody_hears_of() -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        network = client.network
        heard: list[MuxedConnection] = []
        network.watchers.append(heard.append)
        places = [Multiaddr(address) for address in server.addresses]
        connection = await dial(ID.from_base58(server.peer_id), places, network.transports, PATIENCE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await network.take_in(connection)
        assert network.connections(server.peer_id) == heard == [connection]
