"""Dialling: every kind of target, several addresses, and reasons that a user understands."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peertunnel import sockets
from peertunnel.endpoints import TcpEndpoint, UnixEndpoint
from peertunnel.errors import TargetError

from .pair import no_files_left
from .test_sockets import port_of
from .test_sockets_listen import Resolver, needs_ipv6


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, port))
        listener.listen()
        yield listener


@contextmanager
def silent(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A port that answers no more: its queue is full."""
    with listening(host, port) as listener, ExitStack() as stack:
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener


@contextmanager
def refusing() -> Iterator[socket.socket]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_a_target_on_loopback(host: str) -> None:
    with listening(host) as listener:
        for named in (None, host):
            with await sockets.dial(TcpEndpoint(named, port_of(listener)), 5) as sock:
                assert sock.getpeername() == listener.getsockname()
                assert not sock.getblocking()
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", [None, "127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_a_target_on_loopback_needs_no_wait(host: str | None) -> None:
    with listening(host or "127.0.0.1") as listener:
        sock = sockets.dial_at_once(TcpEndpoint(host, port_of(listener)))
        assert sock is not None
        with sock, listener.accept()[0] as theirs:
            assert sock.getpeername() == listener.getsockname() and not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.close()  # as the system does it
            with pytest.raises(ConnectionResetError):
                theirs.recv(1)


async def test_what_needs_a_wait_or_has_a_reason_to_tell_is_left_to_dial(tmp_path: Path) -> None:
    with listening("127.0.0.2") as elsewhere, silent() as full, refusing() as taken:
        assert sockets.dial_at_once(TcpEndpoint("127.0.0.2", port_of(elsewhere))) is None
        assert sockets.dial_at_once(TcpEndpoint("localhost", port_of(elsewhere))) is None
        assert sockets.dial_at_once(UnixEndpoint(str(tmp_path / "socket"))) is None
        for sock in (full, taken):
            assert sockets.dial_at_once(TcpEndpoint(None, port_of(sock))) is None


async def test_a_target_for_which_there_are_no_files_left_is_told_of() -> None:
    with listening() as target, no_files_left():
        endpoint = TcpEndpoint(None, port_of(target))
        assert sockets.dial_at_once(endpoint) is None
        with pytest.raises(TargetError, match="too many open files") as caught:
            await sockets.dial(endpoint, 5)
        assert "ulimit" in caught.value.hint


async def test_a_port_that_answers_itself_is_no_target_at_once_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusing() as taken:
        port = port_of(taken)

    class Unlucky(socket.socket):
        """Gets the very port that it dials, as one in 28,000 does."""

        def connect_ex(self, address: Any) -> int:
            if self.getsockname()[1] != port:
                self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.bind(address)
            return super().connect_ex(address)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Unlucky)
        assert sockets.dial_at_once(TcpEndpoint(None, port)) is None


@needs_ipv6
async def test_ipv4_goes_first_on_loopback() -> None:
    with listening() as first, socket.socket(socket.AF_INET6) as second:
        second.bind(("::1", port_of(first)))
        second.listen()
        with await sockets.dial(TcpEndpoint(None, port_of(first)), 5) as sock:
            assert sock.family == socket.AF_INET


async def test_a_unix_target(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with await sockets.dial(UnixEndpoint(path), 5) as sock:
            assert sock.getpeername() == path and not sock.getblocking()


async def test_a_unix_target_with_a_full_queue_is_waited_for(tmp_path: Path, autojump_clock: Any) -> None:
    path = str(tmp_path / "socket")
    connected = trio.Event()

    async def dial() -> None:
        with await sockets.dial(UnixEndpoint(path), 30):
            connected.set()

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen(0)
        client.connect(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            await trio.sleep(1)
            assert not connected.is_set()
            listener.accept()[0].close()
        assert connected.is_set()


async def test_the_next_address_follows_at_once_after_a_failure(autojump_clock: Any) -> None:
    with listening() as good, refusing() as bad:
        addresses = [(socket.AF_INET, sock.getsockname()) for sock in (bad, good)]
        trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
        started = trio.current_time()
        with await sockets.dial(TcpEndpoint("two.example", 1), 5) as sock:
            assert sock.getpeername() == good.getsockname()
        assert trio.current_time() == started


async def test_the_next_address_follows_soon_after_silence(autojump_clock: Any) -> None:
    with listening() as good, silent() as bad:
        addresses = [(socket.AF_INET, sock.getsockname()) for sock in (bad, good)]
        trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
        started = trio.current_time()
        with await sockets.dial(TcpEndpoint("two.example", 1), 5) as sock:
            assert sock.getpeername() == good.getsockname()
        assert trio.current_time() - started == pytest.approx(sockets.DIAL_STAGGER)


@needs_ipv6
async def test_the_other_family_goes_second(autojump_clock: Any) -> None:
    with listening("::1") as good, silent("127.0.0.1") as bad, silent("127.0.0.2", port_of(bad)):
        silence = [(socket.AF_INET, (host, port_of(bad))) for host in ("127.0.0.1", "127.0.0.2")]
        trio.socket.set_custom_hostname_resolver(Resolver(*silence, (socket.AF_INET6, good.getsockname())))
        started = trio.current_time()
        with await sockets.dial(TcpEndpoint("many.example", 1), 5) as sock:
            assert sock.family == socket.AF_INET6
        assert trio.current_time() - started == pytest.approx(sockets.DIAL_STAGGER)


async def reason(endpoint: TcpEndpoint | UnixEndpoint, timeout: float = 5) -> str:  # noqa: ASYNC109 - handed on
    with pytest.raises(TargetError) as caught:
        await sockets.dial(endpoint, timeout)
    assert caught.value.exit_code == 6 and caught.value.hint
    return caught.value.message


async def test_nobody_listens() -> None:
    with refusing() as taken:
        port = port_of(taken)
        assert await reason(TcpEndpoint(None, port)) == f"Can't reach port {port}: connection refused."
        assert (
            await reason(TcpEndpoint("127.0.0.1", port))
            == f"Can't reach 127.0.0.1:{port}: connection refused."
        )


async def test_of_several_reasons_the_refusal_is_told() -> None:
    with refusing() as taken:
        lacking = (socket.AF_INET, ("255.255.255.255", 1))
        trio.socket.set_custom_hostname_resolver(Resolver(lacking, (socket.AF_INET, taken.getsockname())))
        assert await reason(TcpEndpoint("two.example", 1)) == "Can't reach two.example:1: connection refused."
        trio.socket.set_custom_hostname_resolver(Resolver(lacking, lacking))
        assert "refused" not in await reason(TcpEndpoint("two.example", 1))


async def test_nobody_answers(autojump_clock: Any) -> None:
    with silent() as listener:
        port = port_of(listener)
        assert (
            await reason(TcpEndpoint("127.0.0.1", port)) == f"Can't reach 127.0.0.1:{port}: no answer in 5 s."
        )
        assert await reason(TcpEndpoint(None, port), 0.5) == f"Can't reach port {port}: no answer in 0.5 s."


async def test_no_such_host() -> None:
    class Nowhere(Resolver):
        async def getaddrinfo(self, *question: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    trio.socket.set_custom_hostname_resolver(Nowhere())
    assert await reason(TcpEndpoint("a.example", 1)) == "Can't reach a.example:1: no such host."
    too_long_in_punycode = "ü" * 63
    trio.socket.set_custom_hostname_resolver(None)
    assert "no such host" in await reason(TcpEndpoint(too_long_in_punycode, 1))


async def test_unix_targets_that_are_not_there(tmp_path: Path) -> None:
    missing = UnixEndpoint(str(tmp_path / "missing"))
    assert await reason(missing) == f"Can't reach {missing}: no such file or directory."
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert "connection refused" in await reason(UnixEndpoint(str(tmp_path / "dead")))


async def test_a_connection_to_oneself_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reflexive(socket.socket):
        """Gets the target's own port as its own, as happens by chance among the ephemeral ports."""

        def connect_ex(self, address: Any) -> int:
            self.bind(address)
            return super().connect_ex(address)

    with refusing() as taken:
        port = port_of(taken)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Reflexive)
        assert "connection refused" in await reason(TcpEndpoint("127.0.0.1", port))
