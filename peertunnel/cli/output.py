"""Readers of the event stream: words for people on stderr, JSON lines for programs on stdout."""

import os
import shlex
import sys
from collections.abc import Callable
from typing import TextIO

from peertunnel.cli.options import Flags
from peertunnel.cli.results import RESULTS
from peertunnel.cli.words import sentence, threshold
from peertunnel.events import Emit, Event, Events, Offered, Ready, Shared

Say = Callable[[str], None]


class JsonLines:
    """One JSON object a line, written as soon as it happens; docs/json.md lists them.

    gone: called when the program that reads them has gone, since nobody else is there to stop us.
    events: what is read, for when to write: what happens at once is written at once, in one call of the system.
    """

    def __init__(self, stream: TextIO, gone: Callable[[], None], events: Events | None = None) -> None:
        self._stream = stream
        self._gone = gone
        self._events = events or Events()
        self._lines: list[str] = []

    def __call__(self, event: Event) -> None:
        self._lines.append(event.to_json() + "\n")
        if len(self._lines) == 1:
            self._events.afterwards(self._write)

    def _write(self) -> None:
        text = "".join(self._lines)
        self._lines.clear()
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            _silence(self._stream)
            self._gone()


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
        elif isinstance(event, Offered) and self._verbosity >= 0:
            self._say("The others add this flag to their commands.")
        elif isinstance(event, Ready) and self._advice:
            self._advise(self._advice)

    def _advise(self, command: str) -> None:
        if self._verbosity >= 0:
            self._say(f"On the other machine: {command}")


def reader(
    flags: Flags,
    *,
    advice: str = "",
    screen: Say | None = None,
    gone: Callable[[], None] = lambda: None,
    events: Events | None = None,
) -> Emit:
    """Give the reader that the flags ask for.

    advice: see Words. screen: says things above a display, if there is one. gone and events: see JsonLines.
    """
    results = sys.stderr if flags.stdout_is_data else sys.stdout
    if flags.json:
        return JsonLines(results, gone, events)
    say = screen or printer(sys.stderr)
    result = screen if screen and results.isatty() else printer(results)
    return Words(flags.verbosity, say, result, advice, is_private=sys.stderr.isatty())


def printer(stream: TextIO) -> Say:
    """Give a function that prints a line on a stream, for as long as somebody reads it."""

    def say(text: str) -> None:
        try:
            print(text, file=stream, flush=True)
        except OSError:  # a closed terminal or pipe is no reason to end running tunnels
            _silence(stream)

    return say


def _silence(stream: TextIO) -> None:
    """Send what is still written, also by the interpreter as it ends, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
