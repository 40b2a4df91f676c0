"""A program that another one runs: its lines are read with patience, and it never outlives its owner."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from peertunnel.errors import PeerTunnelError

FAREWELL = 5.0  # seconds to end in good order before it is killed


@contextmanager
def no_interruption() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of the block: what it starts must not be left without an owner."""
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


class ChildError(PeerTunnelError):
    """A program that was started did not do its part."""

    hint = "Run it again with -v, which shows what the programs say."


class Child:
    """A Python module that runs in a process of its own, from `with` to the end of it.

    name: what to call it. module: the module and its arguments. env: its environment.
    is_heard: whether its stderr is shown.
    """

    def __init__(self, name: str, module: Sequence[str], env: Mapping[str, str], is_heard: bool) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", *module],  # -P: no module of the folder that we stand in
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if is_heard else subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name=f"{name}'s output", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def line(self, deadline: float) -> str:
        """Give its next line; raises ChildError when it has ended, or at the deadline on the monotonic clock."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ChildError(f"{self._name} took too long.") from None
        if line is None:
            raise ChildError(f"{self._name} ended before its time.")
        return line

    def event(self, kind: str, deadline: float) -> dict[str, Any]:
        """Give its next JSON line of a kind; raises ChildError when an error comes first, or as `line` does."""
        while True:
            event: dict[str, Any] = json.loads(self.line(deadline))
            if event["kind"] == "error":
                raise ChildError(f"{self._name} failed: {event['message']}", hint=event["hint"])
            if event["kind"] == kind:
                return event

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)
