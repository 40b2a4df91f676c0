"""What can go wrong for a user: one sentence, a hint and an exit code each.

The docstring of a class is the sentence that is shown when no closer one was given.
"""

import errno
from typing import ClassVar

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})


class PeerTunnelError(Exception):
    """The tunnel failed."""

    exit_code: ClassVar[int] = 1
    hint: str = ""

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """Say what happened and what to do about it.

        message: one sentence; the docstring of the class when it is None.
        hint: what the user can do; the hint of the class when it is None.
        """
        self.message = message if message is not None else (type(self).__doc__ or "")
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)


class StoreError(PeerTunnelError):
    """A file could not be read or written."""


class IdentityError(PeerTunnelError):
    """The identity file can't be used."""

    hint = "Move the file away to get a new identity, or name another one with --identity."


class NoNetwork(PeerTunnelError):
    """This machine has no usable network address."""

    hint = "Check the network of this machine."


class TunnelAborted(PeerTunnelError):
    """The tunnel was cut before it had ended."""

    hint = "What was received is incomplete; try again."


class UsageError(PeerTunnelError):
    """The command line makes no sense."""

    exit_code = 2
    hint = "See pt --help."


class ConfigError(UsageError):
    """The configuration file makes no sense."""

    hint = "Correct the file, or name another one with --config."


class NotFound(PeerTunnelError):
    """The other side was not found in time."""

    exit_code = 3
    hint = "Check that the other side is running, with the same id or link; pt doctor tells whether relays and the DHT answer."


class Refused(PeerTunnelError):
    """The other side refused the tunnel."""

    exit_code = 4
    hint = "Check the id or the link; the other side decides who may connect."


class AnotherKey(Refused):
    """The provider has another key than before."""

    hint = "If it was replaced, run pt bind with --accept-new-key."


class LocalPortError(PeerTunnelError):
    """The local port can't be used."""

    exit_code = 5
    hint = "Choose another port; port 0 picks a free one."


class TargetError(PeerTunnelError):
    """The target could not be reached."""

    exit_code = 6
    hint = "Check that the target is running and listening there."


class Interrupted(PeerTunnelError):
    """Interrupted."""

    exit_code = 130


class Dismissed(Interrupted):
    """The program whose data we carry needs us no more."""


def shortage(error: BaseException | None) -> str | None:
    """Give a hint where the system refused only because too many files are open, which may pass; None for all else."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
        return "Too many files are open: end some tunnels, or raise the limit with ulimit -n."
    return None
