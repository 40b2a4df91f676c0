"""Who may come in, as a provider's command line says it, and where it is counted: --allow and so on, --metrics."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peertunnel.cli import values
from peertunnel.cli.options import FILE_PATH, METRICS
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.access import Access
    from peertunnel.cli.run import Session
    from peertunnel.endpoints import Endpoint
    from peertunnel.protocols.service import Service


@dataclass(frozen=True, slots=True)
class Admission:
    """What was given on the command line."""

    allow: tuple[str, ...] = ()
    allowed_peers: Path | None = None
    ask: bool = False
    is_public: bool = False
    metrics: "Endpoint | None" = None

    def access(self, session: "Session", service: "Service") -> "Access":
        """Give the provider's rules; raises StoreError for a list that can't be read."""
        from peertunnel.access import Access
        from peertunnel.cli.asking import Owner

        allowed = None
        if self.allow or self.allowed_peers is not None:
            from peertunnel.allowed import Allowed

            allowed = Allowed(self.allow, self.allowed_peers)
        ask = Owner(service, session.emit, session.prompt.ask).ask if self.ask else None
        return Access(self.is_public, allowed, ask)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, and call the command with admission: an Admission; raises UsageError."""

    @functools.wraps(command)
    def with_admission(
        *args: Any,
        allow: tuple[str, ...],
        allowed_peers: Path | None,
        ask: bool,
        public: bool,
        metrics: "Endpoint | None",
        **rest: Any,
    ) -> Any:
        if public and (allow or allowed_peers or ask):
            raise UsageError(
                "A public service lets everybody in.", hint="Leave out --public, or --allow and --ask."
            )
        if ask and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                "There is no terminal to ask at.", hint="Name the peers with --allow or --allowed-peers."
            )
        admission = Admission(allow, allowed_peers, ask, public, metrics)
        return command(*args, admission=admission, **rest)

    for option in reversed(
        (
            click.option(
                "--allow",
                multiple=True,
                type=values.peer_id,
                metavar="PEERID",
                help="Let only this peer in, even without the id; repeatable.",
            ),
            click.option(
                "--allowed-peers",
                type=FILE_PATH,
                metavar="FILE",
                help="Let only the peers in this file in, one a line; changes count at once.",
            ),
            click.option("--ask", is_flag=True, help="Ask here about each new peer that knows the id."),
            METRICS,
            click.option("--public", is_flag=True, help="Let everybody in: the id is no secret then."),
        )
    ):
        with_admission = option(with_admission)
    return with_admission
