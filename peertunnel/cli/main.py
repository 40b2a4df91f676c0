"""The `pt` command: the list of commands, each loaded when it is asked for."""

import os
import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from types import FrameType
from typing import Any

import click

from peertunnel import __version__
from peertunnel.cli import options

# With the beginning of their help, so that `pt --help` needn't load them.
COMMANDS = {
    "tcp": "Offer a service of this machine, or one that it reaches.",
    "bind": "Reach a service that another machine offers with `pt tcp`.",
    "share": "Offer PORT of this machine, and print a link to it.",
    "connect": "Reach what `pt share` shares on another machine.",
    "ping": "Find PEER, say on which path, and how long a round trip takes.",
    "doctor": "Say what this network lets through, and what to do about it.",
    "relay": "Serve a team on a public machine: meeting point, DHT and relay.",
    "info": "Show this machine's peer id, addresses, files and versions.",
    "id": "Make a strong tunnel id, or judge one.",
    "demo": "Send 64 MiB through a tunnel on this machine and check them.",
    "completion": "Print the completion script of a shell.",
}
ALIASES = {"s": "share", "c": "connect", "i": "info"}


class Commands(click.Group):
    """The commands in the order of the story; a command's module is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands as `pt --help` lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command by its name or alias."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"peertunnel.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; with --json, Ctrl-C doesn't have click end the line at which it was typed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if ctx.ensure_object(options.Flags).json:
                raise click.Abort() from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the beginning of their help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    epilog="These options are understood after a command, too. PT_WAIT=30 in the environment is --wait 30, and so on.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="pt", message="%(prog)s %(version)s")
@options.shared(on_group=True)
def cli() -> None:
    """Forward a TCP port from one machine to another, peer to peer.

    \b
    there$ pt tcp  --port 22   --id NAME      offer a port under a name
    here$  pt bind --port 2022 --id NAME      reach it at localhost:2022
    """


def main() -> None:
    """Run `pt` and exit with one of the codes that docs/errors.md lists."""
    arguments = sys.argv[1:] or ["--help"]
    # A command line that can't be read has no flags yet, and its error still goes where it was asked for.
    flags = options.Flags(json="--json" in arguments or options.json_by_variable())
    try:
        try:
            _end_like_ctrl_c()
            _open_what_is_closed()
            _print_whatever_it_is()
            code = cli.main(arguments, prog_name="pt", standalone_mode=False, obj=flags)
        finally:
            _end_undisturbed()
    except SystemExit:  # from click, which has completed a word, or whose reader has gone
        raise
    except BaseException as error:  # noqa: BLE001  nothing is above us that could tell the user
        _end_undisturbed()  # a signal may have come amid the first time

        from peertunnel.cli.failures import report

        code = report(error, flags)
    sys.exit(code)


def _open_what_is_closed() -> None:
    """Give a program that was started without a standard stream an empty one, or a file of ours would become it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for good


def _print_whatever_it_is() -> None:
    """Have characters that an output's encoding lacks printed as \\u2192 and the like, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does wherever nobody waits for signals."""
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1) wants us to outlive the terminal
        signal.signal(signal.SIGHUP, interrupt)


def _end_undisturbed() -> None:
    """Ignore signals from now on: we end already, and one amid the last words would be a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def interrupt(_: int, frame: FrameType | None) -> None:
    """Handle a signal as SIGINT is: trio has a handler for it that does not break into trio's own work."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)
