"""Two `pt` processes and a tunnel between them, whichever starts first and however they know of each other."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import LOCALLY, SECONDS, Started, environment, run_pt
from tests.cli.servers import ask, connect, echo_server
from tests.tools import PT

ON_THE_LAN = ("--mdns", "--p2p-listen", "/ip4/127.0.0.1/tcp/0")


@pytest.fixture
def target() -> Iterator[int]:
    with echo_server() as port:
        yield port


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def test_provider_first(target: int, tmp_path: Path) -> None:
    with (
        Started(tmp_path / "a", "tcp", "--port", str(target), "--id", "heron", "-v") as provider,
        Started(
            tmp_path / "b", "bind", "--port", "0", "--peer", provider.address(), "--id", "heron"
        ) as consumer,
        connect(consumer.port()) as client,
    ):
        assert ask(client, b"hello") == b"hello"


def test_consumer_first(target: int, tmp_path: Path) -> None:
    listen = ("--p2p-listen", f"/ip4/127.0.0.1/tcp/{free_port()}")
    provide = ("tcp", "--port", str(target), "--id", "heron", "-v", *listen)
    with Started(tmp_path / "a", *provide) as before:
        address = before.address()
    with (
        Started(tmp_path / "b", "bind", "--port", "0", "--peer", address, "--id", "heron") as consumer,
        connect(consumer.port()) as client,
        Started(tmp_path / "a", *provide),
    ):
        assert ask(client, b"hello") == b"hello"


@pytest.mark.parametrize("first", ["tcp", "bind"])
def test_by_name_in_either_order(first: str, target: int, tmp_path: Path) -> None:
    name = os.urandom(8).hex()
    commands = {
        "tcp": ("tcp", "--port", str(target), *ON_THE_LAN),
        "bind": ("bind", "--port", "0", *ON_THE_LAN),
    }
    second = "bind" if first == "tcp" else "tcp"
    with Started(tmp_path / first, *commands[first], PT_ID=name) as one:
        one.until("Ready" if first == "tcp" else "Listening")
        with Started(tmp_path / second, *commands[second], PT_ID=name) as other:
            consumer = other if first == "tcp" else one
            with connect(consumer.port()) as client:
                assert ask(client, b"hello") == b"hello"


def test_the_provider_comes_back(target: int, tmp_path: Path) -> None:
    listen = ("--p2p-listen", f"/ip4/127.0.0.1/tcp/{free_port()}")
    provide = ("tcp", "--port", str(target), "--id", "heron", "-v", *listen)
    with (
        Started(tmp_path / "a", *provide) as before,
        Started(
            tmp_path / "b", "bind", "--port", "0", "--peer", before.address(), "--id", "heron"
        ) as consumer,
    ):
        with connect(consumer.port()) as client:
            ask(client, b"hello")
        before.end(signal.SIGKILL)
        consumer.until("Lost")
        with Started(tmp_path / "a", *provide), connect(consumer.port()) as client:
            assert ask(client, b"hello") == b"hello"


def test_targets_and_locals_may_be_unix_sockets(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "server"))
        server.listen()
        provide = ("tcp", "--target", f"unix:{tmp_path}/server", "--id", "heron", "-v")
        consume = ("bind", "--listen", f"unix:{tmp_path}/client")
        with (
            Started(tmp_path / "a", *provide) as provider,
            Started(tmp_path / "b", *consume, "--peer", provider.address(), "--id", "heron") as consumer,
        ):
            consumer.until(r"unix:.*client$")
            client.connect(str(tmp_path / "client"))
            client.sendall(b"hello")
            connection, _ = server.accept()
            with connection:
                connection.settimeout(SECONDS)
                assert connection.recv(5) == b"hello"
            assert consumer.end(signal.SIGTERM) == 130
        assert not (tmp_path / "client").exists()


def test_share_and_connect(target: int, tmp_path: Path) -> None:
    with Started(tmp_path / "a", "share", str(target)) as provider:
        link = provider.until(r"^pk://\S+$")[0]
        provider.until("Ready")
        assert provider.output == f"{link}\n"
        assert f"/{target}?a=/ip4/127.0.0.1/tcp/" in link
        with (
            Started(tmp_path / "b", "connect", link, "-l", "0") as consumer,
            connect(consumer.port()) as client,
        ):
            assert ask(client, b"hello") == b"hello"


def test_a_port_keeps_its_link_but_for_the_addresses(target: int, tmp_path: Path) -> None:
    links = []
    for _ in range(2):
        with Started(tmp_path, "share", str(target)) as provider:
            links.append(re.sub(r"\?.*#", "#", provider.until(r"^pk://\S+$")[0]))
    with Started(tmp_path, "share", "1") as provider:
        other = re.sub(r"\?.*#", "#", provider.until(r"^pk://\S+$")[0])
    assert links[0] == links[1]
    assert not {links[0][:60], links[0][-22:]} & {other[:60], other[-22:]}


def test_the_link_says_where_to_listen(target: int, tmp_path: Path) -> None:
    port = free_port()
    with Started(
        tmp_path, "connect", f"pk://12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu/{port}"
    ) as it:
        assert it.port() == port


@pytest.mark.parametrize("scheme", ["pk://", ""])
def test_a_peer_id_is_found_on_the_lan(scheme: str, target: int, tmp_path: Path) -> None:
    with Started(tmp_path / "a", "share", str(target), "--public", *ON_THE_LAN) as provider:
        peer_id = provider.until(r"^pk://(\w+)")[1]
        with (
            Started(tmp_path / "b", "connect", f"{scheme}{peer_id}", "-l", "0", *ON_THE_LAN) as consumer,
            connect(consumer.port()) as client,
        ):
            assert ask(client, b"hello") == b"hello"


@pytest.mark.parametrize("options", [(), ("--json",), ("-v",)])
def test_stdio_carries_data_only(options: tuple[str, ...], target: int, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with Started(tmp_path / "a", "tcp", "--port", str(target), "--id", "heron", "-v") as provider:
        ended = subprocess.run(
            [*PT, *LOCALLY, *options, "bind", "--stdio", "--peer", provider.address(), "--id", "heron"],
            input=data,
            capture_output=True,
            env=environment(tmp_path / "b"),
            timeout=SECONDS,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == data
    assert (b'"kind":"path"' if "--json" in options else b"Connected to") in ended.stderr


def test_ping(tmp_path: Path) -> None:
    with Started(tmp_path / "a", "tcp", "--port", "1", "--id", "heron", "-v") as provider:
        address = provider.address()
        ended = run_pt(tmp_path / "b", *LOCALLY, "ping", address, "--count", "2")
        asked_in_json = run_pt(tmp_path / "b", *LOCALLY, "ping", address, "-c", "1", "--json")
    peer_id = address.rpartition("/")[2]
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(
            rf"pong from {peer_id} direct via /ip4/127\.0\.0\.1/tcp/\d+\S* in [\d.]+ ms", line
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(
        rf'{{"kind":"pong","peer_id":"{peer_id}","path":"direct",.*}}\n', asked_in_json.stdout
    )
