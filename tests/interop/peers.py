"""Providers and consumers of every make, as processes that print JSON lines: `pt`, the Go and the Rust peer."""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any

import trio

from tests.tools import PT

START_SECONDS = 60  # an interpreter, libp2p's imports and a machine that builds something else
STOP_SECONDS = 30
POLL_SECONDS = 0.01


class Running:
    """A process and the events that it has printed so far."""

    def __init__(self, process: trio.Process, output: IO[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    async def event(self, kind: str, seconds: float = START_SECONDS, **fields: Any) -> dict[str, Any]:
        """Give the first event of this kind with these fields, past or to come within some seconds.

        They are counted in looks: a machine that stands still for a moment holds up the process as well as us.
        """
        for _ in range(math.ceil(seconds / POLL_SECONDS)):
            has_ended = self.process.poll() is not None  # asked first: what it printed at its very end counts
            if found := self.past(kind, **fields):
                return found[0]
            if has_ended:
                raise AssertionError(f"ended without a {kind!r} event with {fields}:\n{self}")
            await trio.sleep(POLL_SECONDS)
        raise AssertionError(f"no {kind!r} event with {fields} within {seconds} s:\n{self}")

    def past(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Give the events of this kind with these fields that have been printed."""
        wanted = {"kind": kind, **fields}
        return [event for event in map(json.loads, self._lines()) if wanted.items() <= event.items()]

    async def stop(self) -> None:
        """Ask the process to end, and make it end if it doesn't."""
        if self.process.poll() is None:
            self.process.terminate()
        with trio.move_on_after(STOP_SECONDS) as patience:
            await self.process.wait()
        if patience.cancelled_caught:
            self.process.kill()
            raise AssertionError(f"still running {STOP_SECONDS} s after SIGTERM:\n{self}")

    def _lines(self) -> list[str]:
        """Give the lines that are complete."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode().split("\n")[:-1]

    def __str__(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        errors = os.pread(self._errors.fileno(), size, 0).decode(errors="replace")
        return "\n".join([" ".join(map(str, self.process.args)), *self._lines(), errors])


@asynccontextmanager
async def running(command: list[str], home: Path | None = None) -> AsyncIterator[Running]:
    """Run a command, with its own peertunnel files below `home`, until the block ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PT_")}
    environment = kept if home is None else {**kept, "PT_HOME": str(home), "PT_DHT": "0", "PT_PORTMAP": "0"}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
        )
        peer = Running(process, output, errors)
        try:
            yield peer
        finally:
            with trio.CancelScope(shield=True):
                await peer.stop()


def pt(home: Path, *arguments: str) -> AbstractAsyncContextManager[Running]:
    """Run `pt --json` with these arguments and an identity of its own, on loopback only."""
    shared = ["--json", "--no-mdns", "--p2p-listen", "/ip4/127.0.0.1/tcp/0"]
    return running([*PT, *shared, *arguments], home)
