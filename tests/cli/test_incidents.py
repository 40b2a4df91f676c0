"""The second table of docs/errors.md: what befalls a command or a tunnel while it runs."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import trio

from peertunnel.identity import Identity
from peertunnel.node import NodeOptions, open_node
from tests.cli.commands import LOCALLY, SECONDS, Started, environment
from tests.cli.servers import connect, echo_server
from tests.tools import PT, need_namespaces

DOCUMENT = (Path(__file__).parents[2] / "docs/errors.md").read_text().partition("## While it runs")[2]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\| (\d+) \|$", DOCUMENT, re.MULTILINE)
FULL = Path("/dev/full")
NO_PORT = "1"  # tcpmux, which nobody serves


def row(beginning: str) -> tuple[str, str, int]:
    """Give the sentence as a regular expression, the hint and the code of a line of the table."""
    ((_, sentence, hint, code),) = [found for found in ROWS if found[0].startswith(beginning)]
    return re.escape(sentence).replace("…", ".*"), hint, int(code)


def told(beginning: str) -> str:
    """Give what is told on stderr, as a regular expression."""
    sentence, hint, _ = row(beginning)
    return f"error: {sentence}\n hint: {re.escape(hint)}\n"


@pytest.fixture
def target() -> Iterator[int]:
    with echo_server() as port:
        yield port


def provide(home: Path, port: int | str) -> Started:
    return Started(home / "provider", "tcp", "--port", str(port), "--id", "heron", "-v")


def consume_stdio(home: Path, address: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PT, *LOCALLY, "bind", "--stdio", "--peer", address, "--id", "heron"],
        env=environment(home / "consumer"),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_the_provider_goes_away_in_the_middle(target: int, tmp_path: Path) -> None:
    with provide(tmp_path, target) as provider, consume_stdio(tmp_path, provider.address()) as consumer:
        assert consumer.stdin is not None and consumer.stdout is not None
        consumer.stdin.write(b"before")
        consumer.stdin.flush()
        assert consumer.stdout.read(6) == b"before"
        provider.end(signal.SIGKILL)
        _, errors = consumer.communicate(timeout=SECONDS)
    assert consumer.returncode == row("`--stdio`: the provider goes")[2]
    assert re.search(told("`--stdio`: the provider goes"), errors.decode())


@pytest.mark.parametrize("output", ["a full disk", "a pipe without a reader"])
def test_the_output_of_stdio_fails(output: str, target: int, tmp_path: Path) -> None:
    """While the input says nothing, and does not end."""
    if output == "a full disk" and not FULL.exists():
        pytest.skip("this system has no disk that is always full")
    with (
        FULL.open("w") if output == "a full disk" else nobody_reads() as stdout,
        provide(tmp_path, target) as provider,
        consume_stdio(tmp_path, provider.address(), stdout.fileno()) as consumer,
    ):
        assert consumer.stdin is not None and consumer.stderr is not None
        consumer.stdin.write(b"hello")
        consumer.stdin.flush()
        assert consumer.wait(SECONDS) == row("`--stdio`: stdout is")[2]
        assert re.search(told("`--stdio`: stdout is") + r"\Z", consumer.stderr.read().decode())


def nobody_reads() -> IO[str]:
    near, far = os.pipe()
    os.close(near)
    return open(far, "w")


def test_the_target_of_stdio_refuses(tmp_path: Path) -> None:
    with provide(tmp_path, NO_PORT) as provider, consume_stdio(tmp_path, provider.address()) as consumer:
        output, errors = consumer.communicate(timeout=SECONDS)
    assert (consumer.returncode, output) == (row("`--stdio`: the target refuses")[2], b"")
    assert re.search(told("`--stdio`: the target refuses"), errors.decode())


@pytest.mark.parametrize("command", [("bind", "--stdio", "--peer"), ("ping",)])
def test_the_two_sides_have_different_ids(command: tuple[str, ...], tmp_path: Path) -> None:
    """A ping by address needs no id, but by a link it does: this one's secret is another one."""
    beginning = "`--stdio`, `ping`: the two sides"
    with provide(tmp_path, int(NO_PORT)) as provider:
        address = provider.address()
        place, peer_id = address.split("/p2p/")
        where = (address, "--id", "egret") if "bind" in command else (f"pk://{peer_id}?a={place}#{'A' * 22}",)
        words = [*PT, *LOCALLY, *command, *where, "--wait", "4"]
        ended = subprocess.run(
            words,
            env=environment(tmp_path / "b"),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    assert ended.returncode == row(beginning)[2]
    assert re.search(told(beginning), ended.stderr)


async def test_the_peer_has_nothing_to_offer(tmp_path: Path) -> None:
    options = NodeOptions(identity=Identity.ephemeral(), listen=("/ip4/127.0.0.1/tcp/0",), mdns=False)
    async with open_node(options) as node:
        ended = await trio.run_process(
            [*PT, *LOCALLY, "bind", "--stdio", "--peer", node.addresses[0]],
            env=environment(tmp_path),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (row("`--stdio`: the peer has nothing")[2], b"")
    assert re.search(told("`--stdio`: the peer has nothing"), ended.stderr.decode())


def test_no_network_at_all(tmp_path: Path) -> None:
    need_namespaces()
    with Started(
        tmp_path, "ping", "9f8c3f3a1d5be07c42ad", "--wait", "0.2", prefix=["unshare", "--user", "--net"]
    ) as ping:
        assert ping.process.wait(SECONDS) == row("`ping`, `--stdio`: no network")[2]
        assert ping.errors == re.sub(r"\\(.)", r"\1", told("`ping`, `--stdio`: no network"))


def test_no_segno(tmp_path: Path) -> None:
    code = "import sys; sys.modules['segno'] = None; sys.argv = ['pt', 'share', '1', '--qr']"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; from peertunnel.cli.main import main; main()"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == row("`share --qr`")[2]
    assert re.fullmatch(told("`share --qr`"), ended.stderr)


def test_a_target_that_refuses(tmp_path: Path) -> None:
    with (
        provide(tmp_path, NO_PORT) as provider,
        Started(
            tmp_path / "consumer", "bind", "--port", "0", "--peer", provider.address(), "--id", "heron"
        ) as consumer,
    ):
        with connect(consumer.port()) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        provider.until(told("a tunnel: its target refuses").replace("8000", NO_PORT))
        consumer.until("Tunnel 1 closed: reset by the peer")
        assert provider.process.poll() is None


def test_a_target_that_refuses_is_told_in_json(tmp_path: Path) -> None:
    with (
        Started(tmp_path / "a", "tcp", "--port", NO_PORT, "--id", "heron", "--json") as provider,
        Started(
            tmp_path / "consumer", "bind", "--port", "0", "--peer", provider.address(), "--id", "heron"
        ) as consumer,
        connect(consumer.port()),
    ):
        provider.until(f'"kind":"error","code":{row("a tunnel: its target refuses")[2]},')


def test_no_provider_in_time(tmp_path: Path) -> None:
    with Started(tmp_path, "bind", "--port", "0", "--id", "heron", "--wait", "0.2") as consumer:
        for _ in range(2):  # it goes on
            with connect(consumer.port()) as client, pytest.raises(ConnectionResetError):
                client.recv(1)
        consumer.until(told("a tunnel: no provider").replace("10", "0\\.2"))


def test_interrupted(tmp_path: Path) -> None:
    with Started(tmp_path, "bind", "--port", "0", "--id", "heron") as consumer:
        consumer.until("Listening")
        assert consumer.end(signal.SIGINT) == row("Ctrl-C")[2], consumer.errors
        assert consumer.errors.endswith(f"{row('Ctrl-C')[0]}\n".replace("\\", ""))
