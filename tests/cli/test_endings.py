"""How `pt` ends: signals, grace, what is released, and the exit codes of what happens while it runs."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from peertunnel.cli.main import interrupt
from tests.cli.commands import LOCALLY, POLL, SECONDS, Started, environment
from tests.cli.servers import ask, connect, echo_server
from tests.cli.test_terminal import Terminal
from tests.tools import PT

GRACE = "300"  # seconds; longer than any test waits, so that only an end before it passes
STRONG = "9f8c3f3a1d5be07c42ad"  # an id that nobody warns of
READ_ONE_LINE = '{ "$@"; echo code $? >&2; } | head -n 1 >&2'


@pytest.fixture
def target() -> Iterator[int]:
    with echo_server() as port:
        yield port


@pytest.fixture
def provider(target: int, tmp_path: Path) -> Iterator[Started]:
    command = ("tcp", "--port", str(target), "--id", "heron", "-v", "--grace", GRACE)
    with Started(tmp_path / "provider", *command) as started:
        yield started


@pytest.fixture
def consumer(provider: Started, tmp_path: Path) -> Iterator[Started]:
    command = ("bind", "--port", "0", "--peer", provider.address(), "--id", "heron", "-v", "--grace", "inf")
    with Started(tmp_path / "consumer", *command) as started:
        yield started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("side", ["provider", "consumer"])
def test_an_idle_end(side: str, number: int, provider: Started, consumer: Started) -> None:
    consumer.until("Connected")
    ending = provider if side == "provider" else consumer
    assert ending.end(number) == 130
    assert ending.errors.endswith("\nInterrupted.\n")


@pytest.mark.parametrize(("side", "grace"), [("provider", f"go on for {GRACE} s"), ("consumer", "go on")])
def test_running_tunnels_get_grace(side: str, grace: str, provider: Started, consumer: Started) -> None:
    ending = provider if side == "provider" else consumer
    with connect(consumer.port()) as client:
        assert ask(client, b"before") == b"before"
        ending.process.send_signal(signal.SIGINT)
        ending.until(f"Stopping: tunnels may {grace}; Ctrl-C again ends them now")
        assert ask(client, b"after") == b"after"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert ending.process.wait(60) == 130


@pytest.mark.parametrize("side", ["provider", "consumer"])
def test_the_second_signal_ends_tunnels_at_once(side: str, provider: Started, consumer: Started) -> None:
    ending = provider if side == "provider" else consumer
    with connect(consumer.port()) as client:
        ask(client, b"before")
        ending.process.send_signal(signal.SIGTERM)
        ending.until("Stopping")
        assert ending.end(signal.SIGTERM) == 130
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_port_is_closed_to_newcomers_at_the_first_signal_and_free_afterwards(
    provider: Started, consumer: Started
) -> None:
    port = consumer.port()
    with connect(port) as client:
        ask(client, b"before")
        consumer.process.send_signal(signal.SIGINT)
        consumer.until("Stopping")
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert ask(client, b"after") == b"after"
    assert consumer.process.wait(60) == 130
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_grace_ends(provider: Started, tmp_path: Path) -> None:
    command = ("bind", "--port", "0", "--peer", provider.address(), "--id", "heron", "-v", "--grace", "0.5")
    with Started(tmp_path, *command) as consumer, connect(consumer.port()) as client:
        ask(client, b"before")
        before = time.monotonic()
        assert consumer.end(signal.SIGINT) == 130
        assert time.monotonic() - before > 0.5
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_signal_before_the_node_is_up(tmp_path: Path) -> None:
    with Started(tmp_path, "tcp", "--port", "1", "--id", "heron", "-v") as early:
        early.until("can see the id")
        assert early.end(signal.SIGTERM) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_has_begun(number: int, tmp_path: Path) -> None:
    with Terminal(tmp_path, "tcp", "--port", "1", with_stdin=True) as asking:
        asking.until("Tunnel id:")
        assert asking.end(number) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_more_signals_amid_the_last_words(number: int, tmp_path: Path) -> None:
    """They wait for room in a pipe, and so does the end."""
    near, far = os.pipe()
    command = [*PT, *LOCALLY, "bind", "--port", "0", "--id", STRONG]
    with (
        open(near) as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=far, env=environment(tmp_path)) as pt,
    ):
        port = int(re.split("[:\n]", errors.readline())[1])
        errors.readline()  # the other family's
        os.set_blocking(far, False)
        with suppress(BlockingIOError):
            while True:
                os.write(far, b"\n")
        os.set_blocking(far, True)
        os.close(far)
        with pytest.raises(ConnectionRefusedError):
            while True:
                pt.send_signal(number)
                connect(port).close()
        for _ in range(25):  # the listener is closed a little earlier
            pt.send_signal(number)
            time.sleep(POLL)
        assert errors.read().strip() == "Interrupted."
        assert pt.wait(SECONDS) == 130


def test_a_signal_amid_the_work_of_trio_itself() -> None:
    """As it comes in when nobody waits for signals any more: trio raises it again."""

    async def be_interrupted() -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGTERM)
        await trio.sleep_forever()

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(be_interrupted)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nohup(tmp_path: Path) -> None:
    with Started(tmp_path, "bind", "--port", "0", "--id", "heron", prefix=["nohup"]) as command:
        command.until("Listening")
        command.process.send_signal(signal.SIGHUP)
        with connect(command.port()):
            assert command.end(signal.SIGTERM) == 130


def test_ping_ends_at_the_first_signal(tmp_path: Path, provider: Started) -> None:
    command = ("ping", provider.address(), "--count", "1000")
    with Started(tmp_path, *command) as ping:
        ping.until("pong")
        assert ping.end(signal.SIGINT) == 130


def test_who_stops_reading_the_json_lines_stops_us(tmp_path: Path) -> None:
    command = ("bind", "--json", "--port", "0", "--id", STRONG, "--wait", "0.1")
    with Started(tmp_path, *command, prefix=["sh", "-c", READ_ONE_LINE, "sh"]) as piped:
        port = piped.port()
        with pytest.raises(ConnectionRefusedError):
            while True:  # each connection that waits in vain is another line
                with suppress(ConnectionResetError), connect(port) as client:
                    client.recv(1)
        assert piped.until(r"code (\d+)")[1] == "130"
