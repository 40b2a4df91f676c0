"""`pt doctor` calls servers once where they are silent, and waits for none longer than it may."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from peertunnel.doctor.servers import Server, seen_by, visit
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.identify import PROTOCOL
from tests.node.pair import LOOPBACK

WITHIN = 1.0  # seconds; handshakes on loopback take some milliseconds
LATEST = 5.0  # seconds; far below those that identify waits for an answer
LOOPBACK6 = "/ip6/::1/tcp/0"
QUIC = "/ip4/127.0.0.1/udp/1/quic-v1"


@asynccontextmanager
async def hosts(*listen: str) -> AsyncIterator[tuple[Host, Host]]:
    """Run a server and its caller."""
    async with (
        open_host(Identity.ephemeral(), listen, "tcp") as server,
        open_host(Identity.ephemeral(), LOOPBACK, "tcp") as caller,
    ):
        yield server, caller


@contextmanager
def mute() -> Iterator[tuple[socket.socket, str]]:
    """Listen where nothing is ever said."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        listener.setblocking(False)
        yield listener, f"/ip6/::1/tcp/{listener.getsockname()[1]}"


def callers(listener: socket.socket) -> int:
    """Count those who have called."""
    count = 0
    try:
        while True:
            listener.accept()[0].close()
            count += 1
    except BlockingIOError:
        return count


async def test_a_dead_address_is_called_once() -> None:
    async with hosts(*LOOPBACK) as (host, caller):
        with mute() as (listener, dead):
            server = Server(host.peer_id, (dead, *host.listening))
            await visit(caller, server, WITHIN)
            assert list(server.connections) == [4]
            assert await seen_by(caller, server, 6, WITHIN) is None
            assert callers(listener) == 1


async def test_a_dead_address_is_in_no_others_way() -> None:
    async with hosts(*LOOPBACK, LOOPBACK6) as (host, caller):
        with mute() as (listener, dead):
            server = Server(host.peer_id, (dead, host.listening[0]))
            await visit(caller, server, WITHIN)
            assert sorted(server.connections) == [4, 6]
            assert callers(listener) == 1


async def test_what_was_not_tried_is_not_dead() -> None:
    async with hosts() as (host, caller):
        with mute() as (_, dead):
            server = Server(host.peer_id, (dead, QUIC))
            await visit(caller, server, WITHIN)
            assert server.silent == {dead} and server.places == (dead, QUIC)


async def test_who_asks_a_server_hides_it_from_nobody_else() -> None:
    async with hosts() as (host, caller):
        with mute() as (_, dead):
            server = Server(host.peer_id, (dead,))
            assert await seen_by(caller, server, 6, WITHIN) is None
            assert server.of_version(6) == [dead]


async def test_who_never_says_what_it_is_was_reached_all_the_same() -> None:
    async with hosts(*LOOPBACK) as (host, caller):
        host.serve(PROTOCOL, lambda _: None)
        server = Server(host.peer_id, host.listening)
        with trio.fail_after(LATEST):
            assert await visit(caller, server, WITHIN) == []
            assert await seen_by(caller, server, 4, WITHIN) is None
        assert list(server.connections) == [4] and not server.calls_back
