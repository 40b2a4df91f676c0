"""Providers and consumers of every make, as processes that print JSON lines: `pt`, the Go and the Rust peer."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import trio

START_SECONDS = 20  # an interpreter, libp2p's imports and a busy machine
STOP_SECONDS = 10


class Running:
    """A process and the events that it has printed so far."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._errors = errors
        self._printed = trio.Event()
        self._ended = False

    async def event(self, kind: str, seconds: float = START_SECONDS, **fields: Any) -> dict[str, Any]:
        """Give the first event of this kind with these fields, past or to come within some seconds."""
        with trio.move_on_after(seconds):
            while True:
                printed = self._printed
                if found := self.past(kind, **fields):
                    return found[0]
                if self._ended:
                    break
                await printed.wait()
        raise AssertionError(f"no {kind!r} event with {fields} from\n{self}")

    def past(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Give the events of this kind with these fields that have been printed."""
        wanted = {"kind": kind, **fields}
        return [event for event in self.events if wanted.items() <= event.items()]

    async def read(self) -> None:
        """Collect events until the process closes its output."""
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            self.events += [json.loads(line) for line in lines]
            self._wake()
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._printed.set()
        self._printed = trio.Event()

    async def stop(self) -> None:
        """Ask the process to end, and make it end if it doesn't."""
        if self.process.poll() is None:
            self.process.terminate()
        with trio.move_on_after(STOP_SECONDS) as patience:
            await self.process.wait()
        if patience.cancelled_caught:
            self.process.kill()
            raise AssertionError(f"still running {STOP_SECONDS} s after SIGTERM:\n{self}")

    def __str__(self) -> str:
        self._errors.seek(0)
        lines = [" ".join(map(str, self.process.args)), *map(json.dumps, self.events)]
        return "\n".join(lines) + "\n" + self._errors.read().decode(errors="replace")


@asynccontextmanager
async def running(command: list[str], home: Path | None = None) -> AsyncIterator[Running]:
    """Run a command, with its own peertunnel files below `home`, until the block ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PT_")}
    environment = kept if home is None else {**kept, "PT_HOME": str(home)}
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        peer = Running(process, errors)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read)
            try:
                yield peer
            finally:
                with trio.CancelScope(shield=True):
                    await peer.stop()


@asynccontextmanager
async def pt(home: Path, *arguments: str) -> AsyncIterator[Running]:
    """Run `pt --json` with these arguments and an identity of its own, on loopback only."""
    shared = ["--json", "--no-mdns", "--p2p-listen", "/ip4/127.0.0.1/tcp/0"]
    async with running([sys.executable, "-m", "peertunnel", *shared, *arguments], home) as peer:
        yield peer
