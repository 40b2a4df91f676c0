"""`pt relay` as a process: a team meets there, systemd and Prometheus are told, and it ends in good order."""

import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from peertunnel import systemd
from peertunnel.discovery import Announcement, Candidate
from peertunnel.discovery.rendezvous import Rendezvous
from peertunnel.errors import Interrupted
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.protocols.service import Service
from peertunnel.relay import best
from tests.cli.commands import POLL, SECONDS, Started
from tests.cli.servers import ask, connect, echo_server

VIA = r"^--via (/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+)$"
ID = "12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"
SERVICE = Service("a service", b"r" * 32)


@pytest.fixture
def systemd_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on; its address is what a unit's process finds in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        yield listener


def via(relay: Started) -> str:
    return relay.until(VIA)[1]


def site(relay: Started) -> str:
    """Give where its metrics are."""
    return f"http://127.0.0.1:{relay.port()}"


def page(relay: Started) -> str:
    """Fetch the metrics."""
    with urllib.request.urlopen(f"{site(relay)}/metrics", timeout=SECONDS) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        content: bytes = answer.read()
    return content.decode()


def until_page_has(relay: Started, line: str) -> None:
    deadline = time.monotonic() + SECONDS
    while f"\n{line}\n" not in (found := page(relay)):
        assert time.monotonic() < deadline, found
        time.sleep(POLL)


def test_two_of_a_team_meet_by_the_flag_that_it_prints(tmp_path: Path) -> None:
    with (
        echo_server() as target,
        Started(tmp_path / "r", "relay", "--metrics", "0") as relay,
        Started(
            tmp_path / "a", "tcp", "--port", str(target), "--id", "heron", "--via", via(relay), "--no-dht"
        ),
        Started(
            tmp_path / "b", "bind", "--port", "0", "--id", "heron", "--via", via(relay), "--no-dht"
        ) as consumer,
        connect(consumer.port()) as client,
    ):
        assert ask(client, b"hello") == b"hello"
        assert "heron" not in relay.output + relay.errors


def test_its_dht_is_enough_too(tmp_path: Path) -> None:
    with (
        echo_server() as target,
        Started(tmp_path / "r", "relay", PT_DHT="1") as relay,
        Started(
            tmp_path / "a",
            "tcp",
            "--port",
            str(target),
            "--id",
            "heron",
            "--bootstrap",
            via(relay),
            PT_DHT="1",
        ),
        Started(
            tmp_path / "b", "bind", "--port", "0", "--id", "heron", "--bootstrap", via(relay), PT_DHT="1"
        ) as consumer,
        connect(consumer.port()) as client,
    ):
        assert ask(client, b"hello") == b"hello"


async def test_registrations_are_counted(tmp_path: Path) -> None:
    with Started(tmp_path, "relay", "--metrics", "0") as relay:
        point = await trio.to_thread.run_sync(via, relay)
        async with (
            open_host(Identity.ephemeral(), ()) as provider,
            open_host(Identity.ephemeral(), ()) as consumer,
            trio.open_nursery() as nursery,
        ):
            address = f"/ip4/192.0.2.7/tcp/1/p2p/{provider.peer_id}"
            topics = SERVICE.topics_to_publish(time.time())
            announcement = Announcement(provider.peer_id, lambda: (address,), lambda: topics)
            nursery.start_soon(Rendezvous(provider, (point,)).announce, announcement)
            search = Rendezvous(consumer, (point,))
            nursery.start_soon(search.run)
            with trio.fail_after(SECONDS), search.find(SERVICE) as candidates:
                assert await candidates.receive() == Candidate(provider.peer_id, (address,), "rendezvous")
            await trio.to_thread.run_sync(until_page_has, relay, "peertunnel_rendezvous_registrations 2.0")
            text = await trio.to_thread.run_sync(page, relay)
            nursery.cancel_scope.cancel()
    assert "\npeertunnel_connections 2.0\n" in text
    assert "\npeertunnel_rendezvous_peers 1.0\n" in text
    assert "\npeertunnel_rendezvous_namespaces 2.0\n" in text
    assert '\npeertunnel_rendezvous_requests_total{request="register",status="ok"} 2.0\n' in text
    assert not re.search(r"12D3KooW|/ip4/|bafk", text)  # neither who meets, nor under which topic


def test_systemd_hears_when_it_serves_and_when_it_stops(
    tmp_path: Path, systemd_socket: socket.socket
) -> None:
    with Started(tmp_path, "relay", NOTIFY_SOCKET=str(systemd_socket.getsockname())) as relay:
        assert systemd_socket.recv(100) == b"READY=1"
        via(relay)
        assert relay.end(signal.SIGTERM) == Interrupted.exit_code
        assert systemd_socket.recv(100) == b"STOPPING=1"
        assert relay.errors.endswith("Interrupted.\n")


def test_systemd_may_use_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # Linux picks an abstract address
        listener.settimeout(SECONDS)
        name = listener.getsockname()
        assert isinstance(name, bytes)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
        systemd.notify("READY=1")
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("place", ["", "/nowhere/at/all", "relative", "@" + "x" * 300])
def test_where_nobody_listens_nothing_happens(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    systemd.notify("READY=1")


def test_the_flag_is_the_same_at_each_start(tmp_path: Path) -> None:
    listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
    flags = []
    for _ in range(2):
        with Started(tmp_path, "relay", "-q", *listen) as relay:
            flags.append(via(relay))
            assert relay.errors == ""
            relay.end(signal.SIGINT)
    assert flags[0].rpartition("/")[2] == flags[1].rpartition("/")[2]


def test_json_has_the_flag(tmp_path: Path) -> None:
    with Started(tmp_path, "relay", "--json") as relay:
        assert relay.until(r'^\{"kind":"relay","via":"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+"\}$')


def test_only_metrics_are_served(tmp_path: Path) -> None:
    with Started(tmp_path, "relay", "--metrics", "0") as relay:
        base = site(relay)
        for path, data, code in (("/", None, 404), ("/metrics", b"", 405)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(base + path, data, timeout=SECONDS)
            assert refused.value.code == code
            refused.value.close()
        with socket.create_connection(("127.0.0.1", relay.port())) as client:
            client.settimeout(SECONDS)
            client.sendall(b"G" * 10_000)
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass  # with bytes that it has not read
        assert "peertunnel_connections 0.0" in page(relay)


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        (("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"), 2),
        (("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"), 1),
        (("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"), 0),
        (("/ip4/169.254.1.1/tcp/1", "/ip6/fd00::1/tcp/1"), 1),
        (("/ip4/10.0.0.1/tcp/1", "/ip6/2606:4700::1/tcp/1"), 1),
        (("/ip4/8.8.8.8/tcp/1", "/ip6/2606:4700::1/tcp/1"), 0),
    ],
)
def test_the_best_address_is_the_one_that_most_reach(addresses: tuple[str, ...], chosen: int) -> None:
    assert best(tuple(f"{address}/p2p/{ID}" for address in addresses)) == f"{addresses[chosen]}/p2p/{ID}"
