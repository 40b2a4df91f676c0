"""What the system refuses in mid-run, be it threads, descriptors or room in epoll, ends no more than what it was wanted for."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from libp2p.peer.id import ID

from peertunnel import sockets
from peertunnel.cli.output import printer
from peertunnel.endpoints import TcpEndpoint, UnixEndpoint
from peertunnel.errors import NotFound, StoreError, TargetError
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.known import KnownPeers
from peertunnel.transport import quic
from peertunnel.transport.acceptor import serve
from peertunnel.transport.reactor import READ, Reactor
from peertunnel.transport.upgrade import UpgradeError
from tests.node.pair import LOOPBACK, PATIENCE, no_files_left, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic.transport import Quic

PEER = Identity.ephemeral().peer_id


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


async def test_a_name_for_which_there_is_no_thread_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.socket, "getaddrinfo", fail)
    async with open_host(Identity.ephemeral(), ()) as host:
        with pytest.raises(NotFound, match="resolution"):
            await host.dial(PEER, ["/dns4/relay.example/tcp/4001"], PATIENCE)
    with pytest.raises(TargetError, match="temporarily"):
        await sockets.dial(TcpEndpoint("target.example", 80), PATIENCE)


class Silent:
    """Handles a socket of which it wants to know nothing."""

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_failure(self, error: Exception) -> None: ...


async def test_a_connection_that_cannot_be_watched_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor, taken = Reactor(), list[socket.socket]()

    def take(sock: socket.socket, _: str) -> None:
        if not taken:
            monkeypatch.setattr(reactor.selector, "register", lambda fd, interest: refuse(errno.ENOSPC))
        taken.append(sock)
        registration = reactor.register(sock, Silent())
        try:
            registration.add(READ)
        finally:
            monkeypatch.undo()
            registration.wait_for(0)

    listeners = await sockets.listen(TcpEndpoint(None, 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        nursery.start_soon(serve, reactor, listeners, take)
        with trio.fail_after(PATIENCE):
            first = await trio.open_tcp_stream(*listeners[0].getsockname()[:2])
            with pytest.raises(trio.BrokenResourceError):
                assert await first.receive_some() != b""
            async with await trio.open_tcp_stream(*listeners[0].getsockname()[:2]):
                await until(lambda: len(taken) == 2)
        nursery.cancel_scope.cancel()
    sockets.close_listeners(listeners)
    for sock in taken:
        sock.close()


async def test_a_socket_to_dial_from_that_cannot_be_watched_ends_its_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "quic") as server,
        open_host(Identity.ephemeral(), (), "quic") as client,
    ):
        transport = next(one for one in client.network.transports if isinstance(one, Quic))
        with monkeypatch.context() as patch, trio.fail_after(PATIENCE):
            patch.setattr(client.reactor.selector, "register", lambda fd, interest: refuse(errno.ENOSPC))
            with pytest.raises(UpgradeError):
                await transport.dial(ID.from_base58(PEER), ("127.0.0.1", 9))
        await client.dial(server.peer_id, server.addresses, PATIENCE)


def test_a_reader_that_is_gone_takes_no_descriptor_to_forget() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        say = printer(stream)
        with no_files_left():
            say("nobody hears it")
        say("nor this")


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: refuse(errno.ENOLCK))
    with pytest.raises(StoreError, match="no locks available"):
        KnownPeers(tmp_path / "known_peers").remember("0" * 32, PEER, beside=False)


async def test_a_unix_socket_that_has_to_stay_does_not_keep_the_rest_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = [(await sockets.listen(UnixEndpoint(str(tmp_path / name))))[0] for name in "ab"]
    monkeypatch.setattr(os, "unlink", lambda path: refuse(errno.EROFS))
    sockets.close_listeners(listeners)
    assert [listener.fileno() for listener in listeners] == [-1, -1]
