"""Readers of the event stream: words for people on stderr, JSON lines for programs on stdout."""

import errno
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from peertunnel.cli.options import Flags
from peertunnel.cli.results import RESULTS
from peertunnel.cli.values import free_choice
from peertunnel.cli.words import sentence, threshold
from peertunnel.cli.writer import silence
from peertunnel.errors import StoreError
from peertunnel.events import Emit, Event, Events, Offered, Ready, Shared

Say = Callable[[str], None]
Aside = Callable[[], AbstractContextManager[None]]
# What writing gives when the reader of a pipe, or a terminal, is there no more.
_GONE = (errno.EPIPE, errno.EIO)


class OutputError(StoreError):
    """The output can't be written."""

    hint = "Make room there, or write it elsewhere."

    @classmethod
    def of(cls, error: OSError) -> "OutputError":
        """Say why it can't be written."""
        return cls(f"Can't write the output: {(error.strerror or str(error)).lower()}.")


Lost = Callable[[OutputError | None], None]


def insist(failure: OutputError | None) -> None:
    """Raise what took the output from its reader, if that one is still there."""
    if failure is not None:
        raise failure


class JsonLines:
    """One JSON object a line, written as soon as it happens; docs/json.md lists them.

    lost: called when they can't be written, with None when the program that reads them has gone: nobody else is
    there to stop us.
    events: what is read, for when to write: what happens at once is written at once, in one call of the system.
    aside: entered while something is written.
    """

    def __init__(
        self, stream: TextIO, lost: Lost, events: Events | None = None, aside: Aside = nullcontext
    ) -> None:
        self._stream = stream
        self._lost = lost
        self._events = events or Events()
        self._aside = aside
        self._lines: list[str] = []

    def __call__(self, event: Event) -> None:
        self._lines.append(event.to_json() + "\n")
        if len(self._lines) == 1:
            self._events.afterwards(self._write)

    def _write(self) -> None:
        text = "".join(self._lines)
        self._lines.clear()
        try:
            with self._aside():
                self._stream.write(text)
                self._stream.flush()
        except OSError as error:
            silence(self._stream)
            self._lost(failure_of(error))


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
            link = shlex.quote(event.link) if self._is_private else "LINK"
            self._advise(f"pt connect {link}{_elsewhere(event.link)}")
        elif isinstance(event, Offered) and self._verbosity >= 0:
            self._say("The others add this flag to their commands.")
        elif isinstance(event, Ready) and self._advice:
            self._advise(self._advice)

    def _advise(self, command: str) -> None:
        if self._verbosity >= 0:
            self._say(f"On the other machine: {command}")


def _elsewhere(link: str) -> str:
    """Give the option with which `pt connect` opens another port than the link's, where not everybody may open that."""
    from peertunnel.protocols.link import parse_link

    port = parse_link(link).port
    free = free_choice(port)
    return f" -l {free}" if port and free != port else ""


def reader(
    flags: Flags,
    *,
    advice: str = "",
    screen: Say | None = None,
    events: Events | None = None,
    aside: Aside = nullcontext,
) -> Emit:
    """Give the reader that the flags ask for.

    advice: see Words. screen: says things above a display, if there is one. events: see JsonLines.
    aside: entered while something is written on the terminal, but not by screen.
    """
    results = sys.stderr if flags.stdout_is_data else sys.stdout
    aside_for_results = aside if results.isatty() else nullcontext
    if flags.json:
        return JsonLines(results, insist, events, aside_for_results)
    say = screen or printer(sys.stderr, aside=aside)
    result = screen if screen and results.isatty() else printer(results, insist, aside_for_results)
    return Words(flags.verbosity, say, result, advice, is_private=sys.stderr.isatty())


def printer(stream: TextIO, lost: Lost = lambda failure: None, aside: Aside = nullcontext) -> Say:
    """Give a function that prints a line on a stream, for as long as somebody reads it.

    lost: called when it can't be written, with None when the reader has gone. aside: entered while it is written.
    """

    def say(text: str) -> None:
        try:
            with aside():
                print(text, file=stream, flush=True)
        except OSError as error:  # a closed terminal or pipe is no reason to end running tunnels
            silence(stream)
            lost(failure_of(error))

    return say


def finish() -> None:
    """Leave nothing for the interpreter to write as it ends: where that fails, it ends with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


def failure_of(error: OSError) -> OutputError | None:
    """Say why something can't be written, if not because its reader has gone."""
    return None if error.errno in _GONE else OutputError.of(error)
