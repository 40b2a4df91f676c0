"""Files of our own: where they are, and how private ones are written and read.

Private files are 0600 and appear whole or not at all, whatever happens meanwhile.
"""

import contextlib
import errno
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from peertunnel.errors import StoreError, shortage

MAX_PRIVATE = 64 * 1024  # bytes; keys and lists of peers are far smaller
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, our share of it, or what a file may have
_APP = "peertunnel"


def home() -> Path:
    """Give the directory of all our files: $PT_HOME, or else the user's place for configuration; raises StoreError."""
    own = os.environ.get("PT_HOME")
    try:
        return Path(own or platformdirs.user_config_dir(_APP, appauthor=False)).expanduser()
    except RuntimeError:  # $HOME is not set, and nobody knows the user, as in some containers
        what = f"no home directory for PT_HOME {own}" if own else "no home directory"
        raise StoreError(
            f"There is {what}.", hint="Set PT_HOME to the directory where pt may keep files."
        ) from None


def config_path() -> Path:
    """Give the path of the configuration file; raises StoreError."""
    return home() / "config.toml"


def identity_path() -> Path:
    """Give the path of the identity's key; raises StoreError."""
    return home() / "identity.key"


def known_peers_path() -> Path:
    """Give the path of the file of the providers' keys that are known; raises StoreError."""
    return home() / "known_peers"


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600, in place of the one that may be there; raises StoreError."""
    with _errors("write", path), _complete(path, data) as temporary:
        temporary.replace(path)
        _sync_directory(path.parent)


def create_private(path: Path, data: bytes) -> bool:
    """Write a file with mode 0600 unless there is one: of several programs at once, one gets True.

    Raises StoreError.
    """
    with _errors("create", path), _complete(path, data) as temporary:
        try:
            path.hardlink_to(temporary)  # fails if the path exists, which a rename would not
        except FileExistsError:
            return False
        _sync_directory(path.parent)
        return True


def read_private(path: Path) -> bytes | None:
    """Read a file that nobody else may read or write: at most 64 KiB; None when there is no such file.

    Raises StoreError.
    """
    with _errors("read", path):
        try:
            # A pipe in the file's place must not hold us up.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise StoreError(f"{path} is not a file.")
            if mode & 0o077:
                hint = f"Run chmod 600 {shlex.quote(str(path))} if nobody else has read it."
                raise StoreError(f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}).", hint=hint)
            data = file.read(MAX_PRIVATE + 1)
    if len(data) > MAX_PRIVATE:
        raise StoreError(f"{path} is longer than {MAX_PRIVATE} bytes.")
    return data


@contextlib.contextmanager
def _complete(path: Path, data: bytes) -> Iterator[Path]:
    """Write data to a temporary file beside path, on the disk before anyone sees it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _errors(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        todo = "Make room in" if error.errno in _FULL else "Check the permissions of"
        hint = shortage(error) or f"{todo} {path.parent}, or set PT_HOME to another directory."
        reason = (error.strerror or str(error)).lower()
        raise StoreError(f"Can't {verb} {path}: {reason}.", hint=hint) from error
