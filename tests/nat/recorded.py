"""Processes that print JSON lines, each of them noted with the time when it came."""

import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import trio

START_SECONDS = 60  # an interpreter, libp2p's imports and a machine that builds something else
STOP_SECONDS = 5
CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a process, and trio's time when it was read."""

    at: float
    fields: dict[str, Any]


class Recorded:
    """A process and what it has told so far."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self.process = process
        self.started = trio.current_time()
        self.told: list[Happened] = []
        self._errors = errors
        self._news = trio.Event()
        self._ended = False

    async def event(self, kind: str, seconds: float = START_SECONDS, **fields: Any) -> Happened:
        """Give the first event of this kind with these fields, past or to come within some seconds."""
        with trio.move_on_after(seconds):
            while not (found := self.past(kind, **fields)):
                if self._ended:
                    break
                await self.news()
        if found := self.past(kind, **fields):
            return found[0]
        raise AssertionError(f"no {kind!r} event with {fields}:\n{self}")

    def past(self, kind: str, **fields: Any) -> list[Happened]:
        """Give the events of this kind with these fields so far."""
        wanted = {"kind": kind, **fields}
        return [it for it in self.told if wanted.items() <= it.fields.items()]

    async def news(self) -> None:
        """Wait until it tells something, or ends."""
        await self._news.wait()

    async def read(self) -> None:
        """Note what it tells until it ends."""
        assert self.process.stdout is not None
        rest = b""
        while data := await self.process.stdout.receive_some(CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            self.told += [Happened(trio.current_time(), json.loads(line)) for line in lines]
            self._wake()
        self._ended = True
        self._wake()

    async def stop(self) -> None:
        """End it, by force if it takes its time."""
        self.process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await self.process.wait()
        if self.process.poll() is None:
            self.process.kill()
            await self.process.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def __str__(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        errors = os.pread(self._errors.fileno(), size, 0).decode(errors="replace")
        lines = [f"{it.at - self.started:7.3f} {json.dumps(it.fields)[:300]}" for it in self.told]
        return "\n".join([" ".join(map(str, self.process.args)), *lines, errors])


@asynccontextmanager
async def recorded(command: list[str], home: Path) -> AsyncIterator[Recorded]:
    """Run a command, with its own peertunnel files below `home`, until the block ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PT_")}
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**kept, "PT_HOME": str(home), "PT_DHT": "0", "PT_PORTMAP": "0"},
        )
        peer = Recorded(process, errors)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read)
            try:
                yield peer
            finally:
                with trio.CancelScope(shield=True):
                    await peer.stop()
                nursery.cancel_scope.cancel()
