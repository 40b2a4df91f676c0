"""Who may come in, at the command line."""

import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from peertunnel.identity import load_identity
from tests.cli.commands import LOCALLY, Started, run_pt
from tests.cli.servers import ask, connect, echo_server
from tests.cli.test_terminal import Terminal

ID = ("--id", "heron")
BIND = ("bind", "--port", "0")


@pytest.fixture
def target() -> Iterator[int]:
    """A server's port."""
    with echo_server() as port:
        yield port


def peer_id_of(home: Path) -> str:
    """Make the identity of a machine and give its peer id."""
    home.mkdir()
    return load_identity(home / "identity.key").peer_id


def consume(home: Path, address: str, *options: str) -> Started:
    """Reach a service."""
    return Started(home, "bind", "--port", "0", "--peer", address, "-v", *options)


def reaches(consumer: Started) -> bool:
    """Return whether a consumer leads to the server."""
    with connect(consumer.port()) as client:
        return ask(client, b"hello") == b"hello"


def is_refused(home: Path, address: str, *options: str) -> bool:
    """Return whether a consumer ends because it is refused."""
    command = ("bind", "--stdio", "--peer", address, *LOCALLY, "--wait", "4", *options)
    ended = run_pt(home, *command)
    return ended.returncode == 4 and "do not agree on the id" in ended.stderr


def test_a_wrong_id_is_refused_and_told_at_both_ends(target: int, tmp_path: Path) -> None:
    with Started(tmp_path / "a", "tcp", "--port", str(target), *ID, "-v") as provider:
        assert is_refused(tmp_path / "b", provider.address(), "--id", "egret")
        provider.until("did not prove the id or the link, or was not let in")


def test_who_gives_no_id_is_told_what_may_be_missing(target: int, tmp_path: Path) -> None:
    with (
        Started(tmp_path / "a", "tcp", "--port", str(target), *ID, "-v") as provider,
        consume(tmp_path / "b", provider.address()) as consumer,
        connect(consumer.port()) as client,
    ):
        with pytest.raises(ConnectionResetError):
            client.sendall(b"hello")
            client.recv(1)
        consumer.until("it may want an id")


def test_only_peers_that_are_allowed_come_in(target: int, tmp_path: Path) -> None:
    friend = peer_id_of(tmp_path / "friend")
    with Started(tmp_path / "a", "tcp", "--port", str(target), *ID, "-v", "--allow", friend) as provider:
        with consume(tmp_path / "friend", provider.address()) as consumer, connect(consumer.port()) as client:
            assert ask(client, b"hello") == b"hello"  # without the id
        with (
            consume(tmp_path / "friend", provider.address(), *ID) as consumer,
            connect(consumer.port()) as client,
        ):
            assert ask(client, b"hello") == b"hello"
        assert is_refused(tmp_path / "stranger", provider.address(), *ID)


def test_a_peer_that_is_taken_off_the_list_loses_its_tunnels(target: int, tmp_path: Path) -> None:
    friend, names = peer_id_of(tmp_path / "friend"), tmp_path / "allowed"
    names.write_text(f"# who may come in\n{friend} the friend\n")
    command = ("tcp", "--port", str(target), *ID, "-v", "--allowed-peers", str(names))
    with (
        Started(tmp_path / "a", *command) as provider,
        consume(tmp_path / "friend", provider.address(), *ID) as consumer,
        connect(consumer.port()) as client,
    ):
        assert ask(client, b"hello") == b"hello"
        names.write_text("# nobody\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        provider.until(f"{friend} may no longer connect")


def test_the_owner_is_asked_once(target: int, tmp_path: Path) -> None:
    friend = peer_id_of(tmp_path / "friend")
    arguments = ("tcp", "--port", str(target), *ID, "-v", "--ask")
    with Terminal(tmp_path / "a", *arguments, with_stdin=True) as provider:
        address = provider.until(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+")[0]
        with consume(tmp_path / "friend", address, *ID) as consumer, connect(consumer.port()) as client:
            provider.until(rf"{friend} knows the id of .*\[y/N\]")
            provider.type("y")
            assert ask(client, b"hello") == b"hello"
        with consume(tmp_path / "friend", address, *ID) as consumer, connect(consumer.port()) as client:
            assert ask(client, b"again") == b"again"
        stranger = peer_id_of(tmp_path / "stranger")
        with (
            consume(tmp_path / "stranger", address, *ID, "--wait", "5") as consumer,
            connect(consumer.port()) as client,
        ):
            provider.until(rf"{stranger} knows the id of .*\[y/N\]")
            provider.type("")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert provider.end(signal.SIGINT) == 130
    accepted = (tmp_path / "a" / "accepted_peers").read_text()
    assert friend in accepted and stranger not in accepted


def test_asking_needs_a_terminal(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "tcp", "--port", "1", *ID, "--ask")
    assert ended.returncode == 2 and "no terminal to ask at" in ended.stderr


def test_a_public_service_is_told_aloud(target: int, tmp_path: Path) -> None:
    with Started(tmp_path / "a", "tcp", "--port", str(target), *ID, "-v", "--public") as provider:
        provider.until("Anyone may connect")
        assert re.search(r"pt bind .*--public", provider.until(r"On the other machine: .*")[0])
        with consume(tmp_path / "b", provider.address()) as consumer, connect(consumer.port()) as client:
            assert ask(client, b"hello") == b"hello"


def test_another_key_with_the_right_id_is_not_taken_unless_told(target: int, tmp_path: Path) -> None:
    via = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--dht-prefix", "/private")
    with Started(tmp_path / "relay", *via) as relay:
        place = ("--via", relay.until(r"--via (\S+)")[1], "--no-dht", *ID)
        provide = ("tcp", "--port", str(target), *place)
        with Started(tmp_path / "old", *provide), Started(tmp_path / "b", *BIND, *place) as consumer:
            assert reaches(consumer)
        with Started(tmp_path / "new", *provide):
            with Started(tmp_path / "b", *BIND, *place) as consumer:
                consumer.until("not the provider known from before.*--accept-new-key")
            with Started(tmp_path / "b", *BIND, *place, "--accept-new-key") as consumer:
                assert reaches(consumer)


def test_what_happens_is_counted_for_prometheus(target: int, tmp_path: Path) -> None:
    command = ("tcp", "--port", str(target), *ID, "-v", "--metrics", "0")
    with Started(tmp_path / "a", *command) as provider:
        place, address = provider.until(r"Listening on (127\.0\.0\.1:\d+)")[1], provider.address()
        assert is_refused(tmp_path / "stranger", address, "--id", "egret")
        provider.until("did not prove the id or the link, or was not let in")
        with consume(tmp_path / "friend", address, *ID) as consumer:
            assert reaches(consumer)
        provider.until("Tunnel 1 closed")
        with urllib.request.urlopen(f"http://{place}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    counted = dict(re.findall(r"^peertunnel_(\w+) ([\d.]+)$", page, re.MULTILINE))
    assert float(counted["proofs_failed_total"]) >= 1
    assert (counted["tunnels_total"], counted["tunnels_open"]) == ("1.0", "0.0")
