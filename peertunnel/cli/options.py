"""The options that every command understands, before its name or after it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from peertunnel.cli import values

if TYPE_CHECKING:
    from peertunnel.config import Config

F = TypeVar("F", bound=Callable[..., Any])
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@dataclass(slots=True)
class Flags:
    """What options and PT_ variables say; None or empty where the configuration file or a default decides."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    config: Path | None = None
    identity: str | None = None
    wait: float | None = None  # seconds
    grace: float | None = None  # seconds
    mdns: bool | None = None
    dht: bool | None = None
    portmap: bool | None = None
    bootstrap: tuple[str, ...] = ()
    dht_prefix: str | None = None
    rendezvous: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    relay_only: bool = False
    direct_only: bool = False
    transport: str | None = None
    p2p_listen: tuple[str, ...] = ()
    stdout_is_data: bool = False  # then words and JSON lines keep off it
    notices: list[str] = field(default_factory=list)  # warnings to begin with

    @property
    def verbosity(self) -> int:
        """How much to say: the count of -v, or -1 with -q."""
        return -1 if self.quiet else self.verbose

    @property
    def meeting(self) -> str:
        """Where the other side finds us, unless it is by default: options for its command, each behind a space."""
        from peertunnel.config import PUBLIC_PREFIX

        config, names = self.settings(), ("via", "relay", "bootstrap", "rendezvous")
        words = [f" --{name} {place}" for name in names for place in getattr(config, name)]
        if config.dht_prefix != PUBLIC_PREFIX:
            words.append(f" --dht-prefix {config.dht_prefix}")
        return "".join(words)

    def settings(self) -> "Config":
        """Complete the flags from the configuration file and the defaults; raises ConfigError and UsageError."""
        from peertunnel.config import load_config
        from peertunnel.errors import UsageError

        if self.relay_only and self.direct_only:
            raise UsageError(
                "Tunnels can't be both relayed only and direct only.", hint="Leave one of the two out."
            )
        return load_config(self.config).override(
            identity=self.identity,
            listen=self.p2p_listen or None,
            mdns=self.mdns,
            dht=self.dht,
            portmap=self.portmap,
            bootstrap=self.bootstrap or None,
            dht_prefix=self.dht_prefix,
            rendezvous=self.rendezvous or None,
            relay=self.relay or None,
            via=self.via or None,
            ways="relayed" if self.relay_only else "direct" if self.direct_only else None,
            transport=self.transport,
            wait=self.wait,
            grace=self.grace,
        )


FILE = click.Path(readable=False)  # which shells complete; whoever opens it says what is wrong with it
FILE_PATH = click.Path(readable=False, path_type=Path)

METRICS = click.option(
    "--metrics",
    type=values.local,
    metavar="[HOST:]PORT|unix:/PATH",
    help="Serve /metrics for Prometheus.",
)


class _Unlisted(click.Option):
    """An option that help leaves out, and that shells complete all the same, unlike a hidden one."""

    def get_help_record(self, ctx: click.Context) -> None:
        """Give nothing."""


def shared(*, on_group: bool = False) -> Callable[[F], F]:
    """Add the shared options: in full to `pt` itself, and out of sight to each command, whose help stays short."""

    def add(command: F) -> F:
        for name, settings in reversed(_SHARED.items()):
            variable = f"PT_{name.split('--')[1].strip('/').replace('-', '_').upper()}"
            command = click.option(
                *name.split(),
                **settings,
                envvar=variable if on_group else None,
                cls=click.Option if on_group else _Unlisted,
                expose_value=False,
                is_eager=True,
                callback=_remember,
            )(command)
        return command

    return add


def json_by_variable() -> bool:
    """Return whether PT_JSON asks for JSON lines, for when the options can't be read."""
    try:
        return bool(click.BOOL(os.environ.get("PT_JSON") or "no"))
    except click.BadParameter:
        return False


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Note what is given; what stands after the command is read last, and so it counts."""
    flags, name = ctx.find_object(Flags), str(param.name)
    if flags is not None and ctx.get_parameter_source(name) in _GIVEN:
        setattr(flags, name, flags.verbose + value if name == "verbose" else value)


_SHARED: dict[str, dict[str, Any]] = {
    "--json": {"is_flag": True, "help": "Print JSON lines on stdout."},
    "-q --quiet": {"is_flag": True, "help": "Print only errors and results."},
    "-v --verbose": {"count": True, "help": "Show tunnels (-v), logs (-vv), all (-vvv)."},
    "--wait": {
        "type": values.seconds,
        "metavar": "SECONDS",
        "help": "How long to look for the other side.  [10]",
    },
    "--grace": {
        "type": values.seconds,
        "metavar": "SECONDS",
        "help": "How long tunnels may go on after Ctrl-C.  [5]",
    },
    "--mdns/--no-mdns": {"default": None, "help": "Find and be found on the local network.  [yes]"},
    "--dht/--no-dht": {"default": None, "help": "Find and be found in the DHT.  [yes]"},
    "--portmap/--no-portmap": {"default": None, "help": "Have the router map a port for others.  [yes]"},
    "--via": {
        "metavar": "MULTIADDR",
        "multiple": True,
        "type": values.peer_place,
        "help": "A `pt relay` to meet at; repeatable.",
    },
    "--relay": {
        "metavar": "MULTIADDR",
        "multiple": True,
        "type": values.peer_place,
        "help": "A circuit relay to be reached through; repeatable.",
    },
    "--relay-only": {"is_flag": True, "help": "Show nobody our addresses: tunnels go through relays."},
    "--direct-only": {"is_flag": True, "help": "Let no relay carry tunnels, only help with punching holes."},
    "--transport": {
        "type": click.Choice(["auto", "tcp", "quic"]),
        "help": "What to reach peers over.  [auto: both]",
    },
    "--bootstrap": {
        "metavar": "MULTIADDR",
        "multiple": True,
        "type": values.entry,
        "help": "Where the DHT is entered; repeatable.  [the public one]",
    },
    "--rendezvous": {
        "metavar": "MULTIADDR",
        "multiple": True,
        "type": values.peer_place,
        "help": "A rendezvous point to meet at; repeatable.",
    },
    "--dht-prefix": {"metavar": "PREFIX", "help": "The DHT's protocol prefix.  [/ipfs]"},
    "--identity": {"metavar": "FILE", "type": FILE, "help": "The private key of this machine."},
    "--config": {"metavar": "FILE", "type": FILE_PATH, "help": "The configuration file."},
    "--p2p-listen": {
        "metavar": "MULTIADDR",
        "multiple": True,
        "type": values.place,
        "help": "Where peers reach this node; repeatable.  [any port of any address]",
    },
}
