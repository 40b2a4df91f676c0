"""Listening: which addresses, which ports, and what happens to unix sockets that are there already."""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint, UnixEndpoint, parse_local
from peertunnel.errors import LocalPortError
from tests.node.pair import no_files_left

from .test_sockets import port_of


@contextmanager
def closing(listeners: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield listeners
    finally:
        sockets.close_listeners(listeners)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


async def test_a_port_is_that_port_of_both_loopback_addresses() -> None:
    hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    with closing(await sockets.listen(TcpEndpoint(None, 0))) as listeners:
        port = port_of(listeners[0])
        assert port != 0
        assert [listener.getsockname()[:2] for listener in listeners] == [(host, port) for host in hosts]
        for listener in listeners:
            assert not listener.getblocking()
            socket.create_connection(listener.getsockname()[:2]).close()
    with closing(await sockets.listen(TcpEndpoint(None, port))) as listeners:
        assert [port_of(listener) for listener in listeners] == [port] * len(hosts)


@needs_ipv6
async def test_the_name_of_an_ipv6_listener() -> None:
    with closing(await sockets.listen(parse_local("[::1]:0"))) as (listener,):
        assert sockets.local_name(listener) == f"[::1]:{port_of(listener)}"


async def test_the_name_of_an_ipv4_listener() -> None:
    with closing(await sockets.listen(parse_local("127.0.0.2:0"))) as (listener,):
        assert sockets.local_name(listener) == f"127.0.0.2:{port_of(listener)}"


@needs_ipv6
async def test_all_ipv4_addresses_leave_ipv6_alone() -> None:
    # IPv4 first: a port that is free for IPv6 may still be that of an IPv4 connection just closed.
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = port_of(other)
        with closing(await sockets.listen(parse_local(f"[::]:{port}"))) as (listener,):
            assert port_of(listener) == port


class Resolver(trio.abc.HostnameResolver):
    """Answers every question about a host with the same addresses."""

    def __init__(self, *addresses: tuple[int, tuple[Any, ...]]) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *question: Any) -> list[tuple[Any, Any, int, str, tuple[Any, ...]]]:
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in self.addresses]

    async def getnameinfo(self, *question: Any) -> tuple[str, str]:
        raise NotImplementedError


async def test_addresses_that_this_machine_lacks_are_left_out_while_there_is_one() -> None:
    here, absent = (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("192.0.2.1", 0))
    trio.socket.set_custom_hostname_resolver(Resolver(absent, here, here))
    with closing(await sockets.listen(parse_local("both.example:0"))) as (listener,):
        assert listener.getsockname()[0] == "127.0.0.1"
    trio.socket.set_custom_hostname_resolver(Resolver(absent))
    with pytest.raises(LocalPortError, match=r"absent.example:1: cannot assign requested address") as caught:
        await sockets.listen(parse_local("absent.example:1"))
    assert "no such address" in caught.value.hint and caught.value.exit_code == 5


async def test_a_host_that_does_not_exist() -> None:
    class Nowhere(Resolver):
        async def getaddrinfo(self, *question: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    trio.socket.set_custom_hostname_resolver(Nowhere())
    with pytest.raises(
        LocalPortError, match=r"^Can't listen on nowhere.example:22: no such host\.$"
    ) as caught:
        await sockets.listen(parse_local("nowhere.example:22"))
    assert caught.value.hint == "Name an address of this machine, or only a port."


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6)],
)
async def test_a_taken_port_is_refused_on_every_address(family: int, host: str) -> None:
    with socket.socket(family) as other:
        other.bind((host, 0))
        other.listen()
        port = port_of(other)
        with pytest.raises(
            LocalPortError, match=f"Can't listen on port {port}: address already in use"
        ) as caught:
            await sockets.listen(TcpEndpoint(None, port))
        assert "Another program" in caught.value.hint and caught.value.exit_code == 5
    with closing(await sockets.listen(TcpEndpoint(None, port))):  # whatever was bound is free again
        pass


@needs_ipv6
async def test_a_port_is_picked_anew_until_it_is_free_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    squatters: list[socket.socket] = []

    class Squatted(socket.socket):
        """Finds the first three ports taken on ::1."""

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6 and len(squatters) < 3:
                squatter = real(socket.AF_INET6)
                squatter.bind(address)
                squatter.listen()
                squatters.append(squatter)
            super().bind(address)

    real = socket.socket
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Squatted)
        listeners = await sockets.listen(TcpEndpoint(None, 0))
    with closing(listeners):
        ports = {port_of(listener) for listener in listeners}
        assert len(ports) == 1 and not ports & {port_of(squatter) for squatter in squatters}
        assert len(squatters) == 3
    for squatter in squatters:
        squatter.close()


async def test_a_unix_socket_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with closing(await sockets.listen(UnixEndpoint(str(path)))) as (listener,):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sockets.local_name(listener) == f"unix:{path}"


async def test_a_unix_socket_beside_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(await sockets.listen(parse_local("unix:here"))):
        assert (tmp_path / "here").is_socket()


async def test_a_dead_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(await sockets.listen(UnixEndpoint(str(path)))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


async def test_a_live_unix_socket_is_not(tmp_path: Path) -> None:
    endpoint = UnixEndpoint(str(tmp_path / "socket"))
    with closing(await sockets.listen(endpoint)) as (live,):
        with pytest.raises(LocalPortError, match="address already in use") as caught:
            await sockets.listen(endpoint)
        assert "another path" in caught.value.hint and caught.value.exit_code == 5
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(endpoint.path)
            live.accept()[0].close()


async def test_a_live_unix_socket_with_a_full_queue_is_not_either(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        with pytest.raises(LocalPortError, match="already in use"):
            await sockets.listen(UnixEndpoint(path))


async def test_a_file_is_never_taken_for_a_dead_socket(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(LocalPortError, match="a file that is no socket is there"):
        await sockets.listen(UnixEndpoint(str(path)))
    assert path.read_text() == "precious"


async def test_no_directory_for_a_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(LocalPortError, match="no such file or directory"):
        await sockets.listen(UnixEndpoint(str(tmp_path / "missing" / "socket")))


async def test_one_at_a_time_replaces_a_dead_socket(tmp_path: Path, autojump_clock: Any) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    before = path.stat().st_ino
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another pt does that starts on the same socket
    listeners: list[socket.socket] = []

    async def listen() -> None:
        listeners.extend(await sockets.listen(UnixEndpoint(str(path))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(sockets.LOCK_WAIT / 2)
        assert not listeners and path.stat().st_ino == before
        os.close(handle)
    with closing(listeners):
        assert trio.current_time() < sockets.LOCK_WAIT
        assert len(listeners) == 1


async def test_a_stranger_s_lock_is_not_waited_for_any_longer(tmp_path: Path, autojump_clock: Any) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with closing(await sockets.listen(UnixEndpoint(str(tmp_path / "socket")))):
        pass
    os.close(handle)


async def test_all_clients_and_targets_may_send_equally_far_ahead() -> None:
    """Where the system decides, it gives those more of which more is read, who then get on at the others' expense."""
    (listener, *others) = await sockets.listen(TcpEndpoint(None, 0))
    with socket.create_connection(listener.getsockname()[:2]):
        accepted = (await trio.socket.from_stdlib_socket(listener.dup()).accept())[0]
    asked = socket.socket()
    before = asked.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sockets.RECEIVE_BUFFER)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == asked.getsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF
    )
    assert before != asked.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    dialled = sockets.dial_at_once(TcpEndpoint(None, listener.getsockname()[1]))
    assert dialled is not None  # targets of this machine are no other
    assert dialled.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == accepted.getsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF
    )
    dialled.close()
    asked.close()
    accepted.close()
    sockets.close_listeners([listener, *others])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_no_other_port_or_path_is_advised_where_there_are_no_files_left(
    kind: str, tmp_path: Path
) -> None:
    endpoint = TcpEndpoint(None, 0) if kind == "tcp" else UnixEndpoint(str(tmp_path / "socket"))
    with no_files_left(), pytest.raises(LocalPortError, match="too many open files") as caught:
        await sockets.listen(endpoint)
    assert "ulimit" in caught.value.hint
