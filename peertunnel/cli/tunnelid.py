"""The tunnel id: from --id, --id-file, PT_ID or PT_ID_FILE, and how to say it again without showing it."""

import functools
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from peertunnel.cli.options import FILE, Flags
from peertunnel.errors import UsageError
from peertunnel.strength import weakness

BETTER = "Make a better one with pt id new."
HOW = "Give --id NAME or --id-file FILE, or set PT_ID."


@dataclass(frozen=True, slots=True)
class TunnelId:
    """A tunnel id. again: how to give it on the other machine, as an option or a remark.

    Raises UsageError for a text that is not UTF-8.
    """

    text: str = field(repr=False)
    again: str = field(repr=False)
    is_strict: bool = False  # a weak one is refused
    is_in_argv: bool = False  # where `ps` shows it to everybody on the machine

    def __post_init__(self) -> None:
        try:
            self.text.encode()
        except UnicodeEncodeError:  # Python makes lone surrogates of the bytes that it can't decode
            raise _not_utf8() from None


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --id and --id-file, and call the command with tunnel_id: a TunnelId, or None when there is none."""

    @functools.wraps(command)
    def with_id(*args: Any, id_name: str | None, id_file: str | None, strict: bool, **rest: Any) -> Any:
        source = click.get_current_context().get_parameter_source
        in_argv, by_file = (source(name) is ParameterSource.COMMANDLINE for name in ("id_name", "id_file"))
        if in_argv and by_file:
            raise UsageError(
                "The id is given twice, by --id and by --id-file.", hint="Give only one of them."
            )
        tunnel_id = None
        if id_name is not None and not by_file:
            tunnel_id = _from_name(id_name, in_argv)
        elif id_file is not None:
            tunnel_id = from_file(id_file)
        if tunnel_id is not None and strict:
            tunnel_id = replace(tunnel_id, is_strict=True)
        return command(*args, tunnel_id=tunnel_id, **rest)

    named = click.option(
        "--id", "id_name", metavar="NAME", envvar="PT_ID", help="The name that both sides use.  [PT_ID]"
    )
    filed = click.option(
        "--id-file",
        type=FILE,
        metavar="FILE",
        envvar="PT_ID_FILE",
        help="A file with the name.  [PT_ID_FILE]",
    )
    strict = click.option("--strict", is_flag=True, help="Refuse an id that is easy to guess.")
    return named(filed(strict(with_id)))


def from_argument(name: str) -> TunnelId:
    """Take a tunnel id that stands on the command line without --id."""
    return replace(_from_name(name, is_in_argv=True), is_strict=_is_strict())


def required(tunnel_id: TunnelId | None, *, may_ask: bool = True) -> TunnelId:
    """Insist on a tunnel id, and ask for it at a terminal; raises UsageError."""
    if tunnel_id is not None:
        return tunnel_id
    if may_ask and sys.stdin.isatty() and sys.stderr.isatty():
        try:
            text = click.prompt("Tunnel id", hide_input=True, err=True)
        except UnicodeDecodeError:
            raise _not_utf8() from None
        return TunnelId(text, "(with the same id)", is_strict=_is_strict())
    raise UsageError("There is no tunnel id.", hint=HOW)


def warn(tunnel_id: TunnelId | None, flags: Flags, is_public: bool = False) -> None:
    """Tell of a weak id, and people, but no log, that others can see one that stands on the command line.

    Raises UsageError for a weak id that is to be refused.
    """
    if tunnel_id is not None and not is_public and (why := weakness(tunnel_id.text)):
        if tunnel_id.is_strict:
            raise UsageError(why, hint=BETTER)
        flags.notices.append(f"{why} {BETTER}")
    if is_public or tunnel_id is None or not tunnel_id.is_in_argv or flags.json or flags.quiet:
        return
    if sys.stderr.isatty() or flags.verbose:
        click.echo(
            "warning: others on this machine can see the id in `ps`; --id-file or PT_ID hide it.", err=True
        )


def again(tunnel_id: TunnelId, is_public: bool) -> str:
    """Say how to give the id on the other machine: a log gets a placeholder for a secret one."""
    may_be_seen = is_public or not tunnel_id.is_in_argv or sys.stderr.isatty()
    return tunnel_id.again if may_be_seen else "--id NAME"


def _not_utf8() -> UsageError:
    return UsageError(
        "A tunnel id is text in UTF-8.", hint="Set the terminal to UTF-8, or choose another id."
    )


def _is_strict() -> bool:
    return bool(click.get_current_context().params.get("strict"))


def _from_name(name: str, is_in_argv: bool) -> TunnelId:
    if not name:
        raise UsageError("The tunnel id is empty.", hint=HOW)
    if is_in_argv:
        return TunnelId(name, f"--id {shlex.quote(name)}", is_in_argv=True)
    return TunnelId(name, "(with the same PT_ID)")


def from_file(name: str) -> TunnelId:
    """Read a tunnel id from a file; raises UsageError."""
    try:
        text = Path(name).read_text(encoding="utf-8-sig")  # Windows' editors put a byte-order mark first
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is not UTF-8 text"
        )
        raise UsageError(f"Can't read the id file {name}: {reason}.", hint=HOW) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(f"The id file {name} is empty.", hint="Write the tunnel id into it.")
    return TunnelId(text, f"--id-file {shlex.quote(name)}")
