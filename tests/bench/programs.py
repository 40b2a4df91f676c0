"""Processes under measurement: started, waited for until they serve, and ended."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from tests.tools import SYSTEM_FOLDERS

START_SECONDS = 30  # an interpreter, libp2p's imports and a busy machine
_STOP_SECONDS = 10
_POLL_SECONDS = 0.02


class Failed(Exception):
    """A program ended too early, or did not serve in time."""


class Program:
    """A running process whose output goes to a file: a reader would take processor time from the measurement."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def event(self, kind: str, number: int = 0) -> dict[str, Any]:
        """Return a JSON line of this kind, the first or a later one, past or to come.

        Raises:
            Failed: the program ended, or 30 s went by.
        """
        for _ in self._patience():
            lines = [line for line in self._printed().splitlines(keepends=True) if line.endswith("\n")]
            events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
            if len(found := [event for event in events if event["kind"] == kind]) > number:
                return found[number]
        raise self._failure(f"no {kind!r} event")

    def printed(self, pattern: str) -> str:
        """Return the first group of a pattern in what it prints, past or to come; the line ends after the match.

        Raises:
            Failed: the program ended, or 30 s went by.
        """
        for _ in self._patience():
            if found := re.search(f"{pattern}\n", self._printed()):
                return found[1]
        raise self._failure(f"nothing like {pattern!r}")

    def wait_for_port(self, port: int) -> None:
        """Wait until something accepts connections on a port of loopback.

        Raises:
            Failed: the program ended, or 30 s went by.
        """
        for _ in self._patience():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
        raise self._failure(f"nothing listens on port {port}")

    def _patience(self) -> Iterator[None]:
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            yield
            time.sleep(_POLL_SECONDS)

    def _printed(self) -> str:
        # Not by seeking: the process writes at the same offset.
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    def _failure(self, what: str) -> Failed:
        return Failed(f"{what} from {self._process.args!r}:\n{self._printed()}")


@contextmanager
def program(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run a command, with some more environment variables, until the block ends."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
        try:
            yield Program(process, output)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a TCP port of loopback that is free now, for programs that can't pick one and say which."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def find(tool: str) -> str | None:
    """Return the path of an installed program, servers included."""
    return shutil.which(tool, path=os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_FOLDERS)))
