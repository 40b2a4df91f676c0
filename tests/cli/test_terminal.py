"""On a terminal: a line at the bottom while it runs, and words above it."""

import codecs
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.cli.commands import LOCALLY, POLL, SECONDS, Started, environment
from tests.cli.servers import ask, connect, echo_server
from tests.tools import PT


class Terminal:
    """A command whose stderr is a terminal, and whose stdin or stdout is one, too, if it is wanted."""

    def __init__(
        self, home: Path, *arguments: str, with_stdout: bool = False, with_stdin: bool = False
    ) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end amid a character
        self.screen = ""
        self.process = subprocess.Popen(
            [*PT, *LOCALLY, *arguments],
            stdin=slave if with_stdin else subprocess.DEVNULL,
            stdout=slave if with_stdout else subprocess.DEVNULL,
            stderr=slave,
            env={**environment(home), "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until a regular expression matches what was written on the terminal."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self._read())):
            assert time.monotonic() < deadline, self.screen
            time.sleep(POLL)
        return found

    def type(self, text: str | bytes) -> None:
        """Type a line."""
        os.write(self._master, (text.encode() if isinstance(text, str) else text) + b"\n")

    def end(self, number: int) -> int:
        """Send a signal, read the rest, and give the exit code."""
        self.process.send_signal(number)
        self.until("Interrupted")
        code = self.process.wait(SECONDS)
        self._read()
        return code

    def _read(self) -> str:
        try:
            while data := os.read(self._master, 65536):
                self.screen += self._decoder.decode(data)
        except OSError:  # nothing more for now, or, when the other side has closed it, for ever
            pass
        return self.screen


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Started]:
    with (
        echo_server() as port,
        Started(tmp_path / "provider", "tcp", "--port", str(port), "--id", "heron", "-v") as started,
    ):
        yield started


def test_the_line_shows_tunnels_bytes_rate_and_path(provider: Started, tmp_path: Path) -> None:
    with Terminal(tmp_path, "bind", "--port", "0", "--peer", provider.address(), "--id", "heron") as terminal:
        port = int(terminal.until(r"Listening on 127\.0\.0\.1:(\d+)")[1])
        with connect(port) as client:
            ask(client, b"x" * 100_000)
            terminal.until(r"1 open of 1  ↑ 100\.0 KB  ↓ 100\.0 KB  [\d.]+ KB/s  direct, [\d.]+ ms")
        terminal.until("0 open of 1")
        assert terminal.end(signal.SIGINT) == 130


def test_the_line_is_wiped_away_at_the_end(tmp_path: Path) -> None:
    with Terminal(tmp_path, "tcp", "--port", "1", "--id", "heron") as terminal:
        terminal.until("0 open of 0")
        terminal.end(signal.SIGINT)
        assert terminal.screen.endswith("\x1b[2KInterrupted.\r\n")
        assert terminal.screen.count("\x1b[?25h") == terminal.screen.count("\x1b[?25l") == 1  # the cursor


def test_a_long_command_is_not_broken(tmp_path: Path) -> None:
    name = "heron-" * 60
    with Terminal(tmp_path, "tcp", "--port", "22", "--id", name) as terminal:
        terminal.until(f"On the other machine: pt bind --port 2022 --id {name}\r\n")
        assert "can see the id" in terminal.screen


def test_a_link_is_told_whole_on_a_terminal(tmp_path: Path) -> None:
    with Terminal(tmp_path, "share", "22", with_stdout=True) as terminal:
        link = terminal.until(r"(pk://\S+)\r\n")[1]
        terminal.until(re.escape(f"On the other machine: pt connect '{link}' -l 2022\r\n"))


@pytest.mark.parametrize(("option", "sign"), [("-q", "pk://"), ("--json", '"ready"')])
def test_there_is_no_line_for(option: str, sign: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, "share", "22", option, with_stdout=True) as terminal:
        terminal.until(sign)
        terminal.end(signal.SIGINT)
        assert "open of" not in terminal.screen
        assert "\x1b" not in terminal.screen


@pytest.mark.parametrize("command", [("bind", "--stdio", "--id"), ("ping",)], ids=" ".join)
def test_there_is_no_line_where_nothing_stays(command: tuple[str, ...], tmp_path: Path) -> None:
    with Terminal(tmp_path, *command, "heron", "--wait", "0.2") as terminal:
        terminal.process.wait(SECONDS)
        terminal.until("hint: ")
        assert "\x1b" not in terminal.screen


def test_a_terminal_that_is_closed_ends_it(tmp_path: Path) -> None:
    with Terminal(tmp_path, "tcp", "--port", "1", "--id", "heron") as terminal:
        terminal.until("0 open of 0")
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.process.wait(SECONDS) == 130
