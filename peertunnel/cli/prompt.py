"""A question at the terminal: it keeps the last line until it is answered, and what else is said goes above it."""

import os
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import click
import trio

_LINE = 4096  # bytes; a terminal gives no longer line


class Prompt:
    """Asks on stderr and reads from stdin, both a terminal, one question at a time.

    Attributes:
        make_room: entered while a question stands; a display's, which gives the last line up meanwhile.
    """

    def __init__(self) -> None:
        self._question = ""  # the one that stands
        self.make_room: Callable[[], AbstractContextManager[None]] = nullcontext

    async def ask(self, question: str, seconds: float) -> str | None:
        """Return the answer, or None when nobody gave one in time; what was typed before is none."""
        answer = None
        with self.make_room():
            _forget_what_was_typed()
            self._question = question
            _write(question)
            try:
                with trio.move_on_after(seconds):
                    answer = await _read_line()
            finally:
                self._question = ""
                if answer is None:  # else who answered has ended the line
                    _write("\n")
        return answer

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let something else be written; the question that stands, if any, is repeated below it."""
        if self._question:
            _write("\n")
        try:
            yield
        finally:
            if self._question:
                _write(self._question)


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that was closed is no reason to end running tunnels
        click.echo(text, err=True, nl=False)


def _forget_what_was_typed() -> None:
    """Discard what was typed before there was a question: nobody meant it as the answer."""
    descriptor = sys.stdin.fileno()
    with suppress(OSError):  # not the terminal that we were started at, so it can't stop us
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return  # what is typed is another program's, and the system stops who meddles with it
    with suppress(termios.error):
        termios.tcflush(descriptor, termios.TCIFLUSH)


async def _read_line() -> str:
    """Read what was typed, once there is a whole line; "" at the end of the input."""
    descriptor = sys.stdin.fileno()
    await trio.lowlevel.wait_readable(descriptor)
    try:
        return os.read(descriptor, _LINE).decode(errors="replace")
    except OSError:  # the terminal was closed
        return ""
