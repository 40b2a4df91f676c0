"""What a relay carries from peer to peer, as the command line says it: --no-circuits, --unlimited-for and so on."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peertunnel.cli import tunnelid, values
from peertunnel.cli.options import FILE, FILE_PATH
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.protocols.service import Service
    from peertunnel.relay import CircuitOptions


@dataclass(frozen=True, slots=True)
class Circuits:
    """What was given on the command line. service: whose ends have no limits, once it is read."""

    are_off: bool = False
    peers: tuple[str, ...] = ()
    path: Path | None = None
    service: "Callable[[], Service] | None" = None

    def settings(self) -> "CircuitOptions | None":
        """Give what the relay wants to know, None where it carries nothing; raises StoreError for a bad list."""
        from peertunnel.allowed import Allowed
        from peertunnel.relay import CircuitOptions

        if self.are_off:
            return None
        root = None if self.service is None else self.service().root
        return CircuitOptions(Allowed(self.peers, self.path), root)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, and call the command with circuits: a Circuits; raises UsageError."""

    @functools.wraps(command)
    def with_circuits(
        *args: Any,
        no_circuits: bool,
        unlimited_for: tuple[str, ...],
        unlimited_peers: Path | None,
        unlimited_id_file: str | None,
        **rest: Any,
    ) -> Any:
        if no_circuits and (unlimited_for or unlimited_peers or unlimited_id_file):
            raise UsageError(
                "A relay that carries nothing has no limits to lift.",
                hint="Leave out --no-circuits, or --unlimited-for and the like.",
            )
        service = None
        if unlimited_id_file is not None:
            service = values.soon(values.service, tunnelid.from_file(unlimited_id_file).text)
        circuits = Circuits(no_circuits, unlimited_for, unlimited_peers, service)
        return command(*args, circuits=circuits, **rest)

    for option in reversed(
        (
            click.option("--no-circuits", is_flag=True, help="Carry nothing from peer to peer."),
            click.option(
                "--unlimited-for",
                multiple=True,
                type=values.peer_id,
                metavar="PEERID",
                help="No limits for the circuits of this peer; repeatable.",
            ),
            click.option(
                "--unlimited-peers",
                type=FILE_PATH,
                metavar="FILE",
                help="The same for the peers in this file, one a line; changes count at once.",
            ),
            click.option(
                "--unlimited-id-file",
                type=FILE,
                metavar="FILE",
                help="The same for both ends that know the id in it.",
            ),
        )
    ):
        with_circuits = option(with_circuits)
    return with_circuits
