"""Who reads the output may pause, be slow or go away: tunnels run on, and nothing is lost without a word."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from peertunnel.cli.writer import Writer
from tests.cli.commands import LOCALLY, POLL, SECONDS, Started, environment
from tests.cli.servers import ask, connect, echo_server
from tests.cli.test_incidents import told
from tests.cli.test_terminal import Terminal
from tests.tools import PT

FULL = Path("/dev/full")
STRONG = "9f8c3f3a1d5be07c42ad"  # an id that nobody warns of
PAGE = 4096  # bytes
# Each connection waits in vain, and that is told.
UNMET = ("bind", "--port", "0", "--id", STRONG, "--wait", "0.1")


class Piped:
    """A command whose stdout, or stderr, is a pipe that is read, filled or closed here.

    settings: of the writer, other ones than it has.
    """

    def __init__(self, home: Path, *arguments: str, stream: str = "stdout", **settings: float) -> None:
        near, self._far = os.pipe()
        self.reader = open(near)  # noqa: SIM115  closed in __exit__
        changes = "".join(f"writer.{name} = {value}; " for name, value in settings.items())
        code = f"from peertunnel.cli import main, writer; {changes}main.main()"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *LOCALLY, *arguments],
            stdin=subprocess.DEVNULL,
            env=environment(home),
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: self._far},  # type: ignore[call-overload]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.close()
        with suppress(OSError):
            os.close(self._far)

    def until(self, pattern: str, before: list[str] | None = None) -> re.Match[str]:
        """Read lines up to one that matches, and note those before it."""
        for line in self.reader:
            if found := re.search(pattern, line):
                return found
            if before is not None:
                before.append(line)
        raise AssertionError(f"no line with {pattern}")

    def fill(self, is_blocking: bool = True) -> None:
        """Leave no room in the pipe, with empty lines, and let it block whoever writes to it, or not."""
        os.set_blocking(self._far, False)
        for size in (PAGE, 1):
            with suppress(BlockingIOError):
                while True:
                    os.write(self._far, b"\n" * size)
        os.set_blocking(self._far, is_blocking)
        os.close(self._far)

    def shrink(self) -> None:
        """Let the pipe hold one page."""
        fcntl.fcntl(self._far, fcntl.F_SETPIPE_SZ, PAGE)

    def end(self, number: int) -> list[str]:
        """Send a signal and give the lines that are left to read."""
        self.process.send_signal(number)
        lines = [line for line in self.reader.read().split("\n") if line]
        assert self.process.wait(SECONDS) == 130
        return lines


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Started]:
    with (
        echo_server() as port,
        Started(tmp_path / "provider", "tcp", "--port", str(port), "--id", STRONG, "-v") as started,
    ):
        yield started


def wait_in_vain(port: int, times: int) -> None:
    for client in [connect(port) for _ in range(times)]:
        with client, suppress(ConnectionResetError):
            assert client.recv(1) == b""


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "non-blocking"])
def test_tunnels_run_on_while_a_pipe_is_not_read(
    is_blocking: bool, provider: Started, tmp_path: Path
) -> None:
    command = ("bind", "--json", "--port", "0", "--peer", provider.address(), "--id", STRONG)
    with Piped(tmp_path, *command) as consumer:
        port = int(consumer.until(r"127\.0\.0\.1:(\d+)")[1])
        consumer.until('"path"')
        consumer.fill(is_blocking)
        for _ in range(3):
            with connect(port) as client:
                assert ask(client, b"hello") == b"hello"
        events = parsed(consumer.end(signal.SIGINT))
        assert [event["tunnel"] for event in events if event["kind"] == "tunnel-opened"] == [1, 2, 3]
        assert events[-1] == {"kind": "error", "code": 130, "message": "Interrupted.", "hint": ""}


def test_tunnels_run_on_while_a_terminal_stands_still(provider: Started, tmp_path: Path) -> None:
    command = ("bind", "--port", "0", "--peer", provider.address(), "--id", STRONG, "-v")
    with Terminal(tmp_path, *command) as terminal:
        port = int(terminal.until(r"Listening on 127\.0\.0\.1:(\d+)")[1])
        terminal.until("Connected to")
        terminal.type("\x13")  # Ctrl-S
        with connect(port) as client:
            end = time.monotonic() + 1.5  # in which the line at the bottom would be drawn three times
            while time.monotonic() < end:
                assert ask(client, b"hello") == b"hello"
        assert "Tunnel 1" not in terminal.screen
        terminal.type("\x11")  # Ctrl-Q
        terminal.until("Tunnel 1 opened(.*\r\n)+.*Tunnel 1 closed")
        terminal.type("\x13")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(SECONDS) == 130


@pytest.mark.parametrize("options", [("--json",), ()], ids=["json", "words"])
def test_what_is_left_out_is_counted(options: tuple[str, ...], tmp_path: Path) -> None:
    """And told in its place, once there is room: an error is one line of JSON, or two of words."""
    stream, left_out, each = (
        ("stdout", r'^{"kind":"left-out","lines":(\d+)}$', 1)
        if options
        else ("stderr", r"^warning: (\d+) lines were left out here", 2)
    )
    with Piped(tmp_path, *UNMET, *options, stream=stream, ROOM=2000) as consumer:
        port = int(consumer.until(r"127\.0\.0\.1:(\d+)")[1])
        consumer.fill()
        wait_in_vain(port, 30)
        before: list[str] = []
        missing = int(consumer.until(left_out, before)[1])
        wait_in_vain(port, 1)
        after = consumer.end(signal.SIGINT)
    seen, seen_later = (len(re.findall("Found no provider", "\n".join(lines))) for lines in (before, after))
    assert seen and seen_later == 1
    assert missing == each * (30 - seen) > 0


def test_all_is_written_at_the_end_for_a_slow_reader(tmp_path: Path) -> None:
    """Who takes some now and then, if it takes longer than one who takes nothing would be waited for."""
    pause = 0.2  # seconds
    with Piped(tmp_path, *UNMET, "--json", PATIENCE=3 * pause) as consumer:
        consumer.shrink()
        port = int(consumer.until(r"127\.0\.0\.1:(\d+)")[1])
        consumer.fill()
        wait_in_vain(port, 100)
        consumer.process.send_signal(signal.SIGINT)
        text = b""
        while data := os.read(consumer.reader.fileno(), PAGE):
            text += data
            time.sleep(pause)
        assert consumer.process.wait(SECONDS) == 130
    events = parsed([line for line in text.decode().split("\n") if line.startswith('{"kind":"error"')])
    assert [event["code"] for event in events] == [3] * 100 + [130]


def test_a_second_signal_does_not_wait_for_the_reader(tmp_path: Path) -> None:
    with Piped(tmp_path, *UNMET, "--json", PATIENCE=10 * SECONDS) as consumer:
        port = int(consumer.until(r"127\.0\.0\.1:(\d+)")[1])
        consumer.fill()
        wait_in_vain(port, 1)
        deadline = time.monotonic() + SECONDS
        while consumer.process.poll() is None:
            assert time.monotonic() < deadline
            consumer.process.send_signal(signal.SIGTERM)
            time.sleep(POLL)
        assert consumer.process.returncode == 130


def test_a_reader_that_goes_amid_a_line_ends_it_at_once(tmp_path: Path) -> None:
    with Piped(tmp_path, *UNMET, "--json") as consumer:
        port = int(consumer.until(r"127\.0\.0\.1:(\d+)")[1])
        consumer.fill()
        wait_in_vain(port, 1)
        assert consumer.process.poll() is None
        consumer.reader.close()
        assert consumer.process.wait(SECONDS) == 130


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("option", ["--json", "-v"])
@pytest.mark.parametrize("count", ["1", "1000"])
def test_a_ping_to_a_full_disk(count: str, option: str, provider: Started, tmp_path: Path) -> None:
    """It ends at the first answer that can't be written, and fails even if it is the last."""
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*PT, *LOCALLY, "ping", provider.address(), "--count", count, option],
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert ended.returncode == 1
    assert re.search(told("without `--stdio`: stdout is a file on a full disk") + r"\Z", ended.stderr)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
def test_words_on_a_full_disk_are_no_failure(provider: Started, tmp_path: Path) -> None:
    command = [*PT, *LOCALLY, "bind", "--stdio", "-v", "--peer", provider.address()]
    with FULL.open("w") as full:
        ended = subprocess.run(
            command,
            input=b"hello",
            env=environment(tmp_path, PT_ID=STRONG),
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=SECONDS,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (0, b"hello")


def test_one_long_write_is_waited_for_as_long_as_some_of_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = os.pipe()
    fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, PAGE)
    sizes: list[int] = []

    def read_slowly() -> None:
        while data := os.read(near, PAGE):
            sizes.append(len(data))
            time.sleep(0.1)

    thread = threading.Thread(target=read_slowly)
    with open(far, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", file)
        writer = Writer()
        writer.patience = 0.5
        thread.start()
        print("x" * 12 * PAGE)
        assert writer.finish(writer.stdout) is None
        assert sum(sizes) >= 10 * PAGE
    thread.join()
    os.close(near)
    assert sum(sizes) == 12 * PAGE + 1
