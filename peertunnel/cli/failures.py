"""The end of a failed command: one sentence, a hint and an exit code, and no traceback that nobody asked for."""

import errno
import traceback
from collections.abc import Iterator
from dataclasses import replace

import click

from peertunnel.cli.options import Flags
from peertunnel.cli.output import OutputError, finish, reader
from peertunnel.errors import Dismissed, Interrupted, NoNetwork, NotFound, PeerTunnelError, UsageError
from peertunnel.events import ErrorOccurred

TRACEBACKS = 2  # the verbosity from which on a user wants to see where it failed


class Bug(PeerTunnelError):
    """This is a bug in pt."""

    hint = "Run it again with -vv, and report what it prints."


def report(error: BaseException, flags: Flags) -> int:
    """Say what went wrong where the flags want it, unless we were just dismissed, and give the exit code."""
    if flags.verbosity >= TRACEBACKS:
        traceback.print_exception(error)
    told = min((_as_ours(leaf) for leaf in _leaves(error)), key=_rank)
    if isinstance(told, NotFound) and not _has_network():
        told = NoNetwork()
    if isinstance(told, Dismissed):
        finish()
        return told.exit_code
    event, in_words = ErrorOccurred.of(told), reader(replace(flags, json=False))
    try:
        (in_words if isinstance(told, OutputError) else reader(flags))(event)
    except OutputError:  # what stdout does not take can be told on stderr alone
        in_words(event)
    finish()
    return told.exit_code


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the exceptions inside nested groups, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _as_ours(error: BaseException) -> PeerTunnelError:
    match error:
        case PeerTunnelError():
            return error
        case KeyboardInterrupt() | click.Abort():
            return Interrupted()
        case click.UsageError():
            path = error.ctx.command_path if error.ctx is not None else "pt"
            message = " ".join(error.format_message().split())  # a list of choices is several lines with tabs
            full_stop = "" if message.endswith((".", "?")) else "."
            return UsageError(message + full_stop, hint=f"See {path} --help.")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            # It is click's, of --help and the like: our files' have been told of by now.
            return OutputError.of(error)
    return Bug(f"This is a bug in pt: {type(error).__name__}: {error}".rstrip(": ") + ".")


def _rank(error: PeerTunnelError) -> int:
    """Of several errors tell one: an interruption explains the others, and a bug explains nothing."""
    return 0 if isinstance(error, Interrupted) else 2 if isinstance(error, Bug) else 1


def _has_network() -> bool:
    from peertunnel.interfaces import interface_addresses

    return any(not address.ip.is_loopback for address in interface_addresses())
