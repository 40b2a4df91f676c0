"""`pt` as a process: run to its end, or opened and talked to."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from tests.tools import PT

LOCALLY = ["--no-mdns", "--p2p-listen", "/ip4/127.0.0.1/tcp/0", "--wait", "50"]
POLL = 0.02  # seconds between looks at what a process has printed
SECONDS = 60  # for a command that ends by itself, on a busy machine


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Give an environment without the user's own PT_ variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PT_")}
    quiet = {"PT_DHT": "0", "PT_PORTMAP": "0"}  # nobody outside is asked
    return {**kept, "PT_HOME": str(home), **quiet, **variables}


def run_pt(
    home: Path, *arguments: str, data: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PT, *arguments],
        input=data,
        cwd=cwd,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Started:
    """A command that runs on: what it prints is waited for, and it is killed if it outlives its test."""

    def __init__(self, home: Path, *arguments: str, prefix: Sequence[str] = (), **variables: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*prefix, *PT, *LOCALLY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            env=environment(home, **variables),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()
        self._errors.close()

    @property
    def output(self) -> str:
        """What is on stdout so far."""
        return _content(self._output)

    @property
    def errors(self) -> str:
        """What is on stderr so far."""
        return _content(self._errors)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until a regular expression matches what it has printed, on stdout and then stderr."""
        deadline = time.monotonic() + SECONDS
        while True:
            goes_on = self.process.poll() is None  # asked first: what it prints at its very end counts
            if found := re.search(pattern, self.output + self.errors, re.MULTILINE):
                return found
            assert goes_on and time.monotonic() < deadline, self.output + self.errors
            time.sleep(POLL)

    def address(self) -> str:
        """Give the multiaddr of a provider that runs with -v or --json."""
        return self.until(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+")[0]

    def port(self) -> int:
        """Give the local port of a consumer."""
        return int(self.until(r"127\.0\.0\.1:(\d+)")[1])

    def end(self, *signals: int) -> int:
        """Send signals and give the exit code."""
        for number in signals:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


def _content(file: IO[bytes]) -> str:
    """Give what is in a file, which may end amid a character for now."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
