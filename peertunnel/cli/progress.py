"""One line at the bottom of a terminal: tunnels, bytes, rate and path."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from peertunnel.cli.prompt import Prompt
from peertunnel.cli.totals import Totals

REFRESH = 0.5  # seconds; what a person can follow, and nothing against the data path


class Display:
    """The totals on stderr, redrawn while `draw` runs; what is said meanwhile goes above them.

    A question has their place while it stands.

    keeps_up: says whether the terminal has shown all that was written: what is out of date is not to wait for it.
    """

    def __init__(self, totals: Totals, prompt: Prompt, keeps_up: Callable[[], bool]) -> None:
        self._totals = totals
        self._keeps_up = keeps_up
        self._prompt = prompt
        prompt.make_room = self._away
        self._console = Console(stderr=True)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the display, whole, so that a command in it can be copied."""
        # A terminal that was closed is no reason to end running tunnels.
        with suppress(OSError), self._prompt.aside():
            self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    async def draw(self) -> None:
        """Redraw the line until cancelled."""
        while True:
            line = Text(self._totals.line(trio.current_time()), no_wrap=True, overflow="ellipsis")
            if self._live.is_started and self._keeps_up():
                with suppress(OSError):
                    self._live.update(line, refresh=True)
            await trio.sleep(REFRESH)

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Leave the last line to something else for now."""
        with suppress(OSError):
            self._live.stop()
        try:
            yield
        finally:
            with suppress(OSError):
                self._live.start(refresh=True)
