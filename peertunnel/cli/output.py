"""Readers of the event stream: words for people on stderr, JSON lines for programs on stdout."""

import json
import shlex
import signal
import sys
from collections.abc import Callable
from typing import TextIO

from peertunnel.cli.options import Flags
from peertunnel.cli.results import RESULTS
from peertunnel.cli.words import sentence, threshold
from peertunnel.events import Emit, Event, Ready, Shared

Say = Callable[[str], None]


class JsonLines:
    """One JSON object a line, written as soon as it happens; docs/json.md lists them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_read = True

    def __call__(self, event: Event) -> None:
        if not self._is_read:
            return
        try:
            print(json.dumps(event.to_json(), separators=(",", ":")), file=self._stream, flush=True)
        except BrokenPipeError:
            # The program that steers us by these lines has gone, so nobody is left to stop the tunnels.
            self._is_read = False
            signal.raise_signal(signal.SIGTERM)


class Words:
    """Sentences of at most this verbosity to say, and results (a link, a pong), which are always wanted.

    advice: what to run on the other machine, said once the node is ready; "" for nothing.
    is_private: whether only the user sees what is said, so that it may hold a link's secret.
    """

    def __init__(
        self, verbosity: int, say: Say, result: Say, advice: str = "", is_private: bool = False
    ) -> None:
        self._verbosity = verbosity
        self._say = say
        self._result = result
        self._advice = advice
        self._is_private = is_private

    def __call__(self, event: Event) -> None:
        if isinstance(event, RESULTS):
            self._result(sentence(event))
        elif threshold(event) <= self._verbosity:
            self._say(sentence(event, self._verbosity))
        if isinstance(event, Shared):
            self._advise(f"pt connect {shlex.quote(event.link) if self._is_private else 'LINK'}")
        elif isinstance(event, Ready) and self._advice:
            self._advise(self._advice)

    def _advise(self, command: str) -> None:
        if self._verbosity >= 0:
            self._say(f"On the other machine: {command}")


def reader(
    flags: Flags, advice: str = "", *, stdout_is_data: bool = False, screen: Say | None = None
) -> Emit:
    """Give the reader that the user asked for; screen says things above a progress display, if there is one."""
    results = sys.stderr if stdout_is_data else sys.stdout
    if flags.json:
        return JsonLines(results)
    say = screen or printer(sys.stderr)
    result = screen if screen and results.isatty() else printer(results)
    return Words(flags.verbosity, say, result, advice, is_private=sys.stderr.isatty())


def printer(stream: TextIO) -> Say:
    """Give a function that prints a line on a stream, for as long as somebody reads it."""

    def say(text: str) -> None:
        try:
            print(text, file=stream, flush=True)
        except (OSError, ValueError):
            pass  # a closed terminal or pipe is no reason to end running tunnels

    return say
