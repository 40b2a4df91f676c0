"""The peers that a provider lets in: named on the command line, or in a file that is read again when it changes.

The file is like ssh's authorized_keys: a peer id a line, and a remark behind it; `#` begins a comment.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from peertunnel.errors import StoreError
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id

MAX_FILE = 1024 * 1024  # bytes; some fifteen thousand peers
_HINT = "Write a peer id a line, as pt info shows it on the other machine."


class Allowed:
    """A set of peer ids.

    Args:
        peer_ids: in base58.
        path: a file with more of them, or None.

    Raises:
        StoreError: the file can't be read, or has a line that begins with no peer id.
    """

    def __init__(self, peer_ids: Iterable[str], path: Path | None) -> None:
        self._named = frozenset(peer_ids)
        self._path = path
        self._listed: frozenset[str] = frozenset()
        self._state: tuple[int, int, int] | None = None
        if path is not None:
            self._state = _state(path)
            self._listed = _read(path)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._named or peer_id in self._listed

    def reload_if_changed(self) -> bool:
        """Read the file again if it is another one by now; return whether that was so.

        A file that is gone names nobody. Raises StoreError; what was read before counts until the file is in order.
        """
        if self._path is None or (state := _state(self._path)) == self._state:
            return False
        self._listed = _read(self._path) if state is not None else frozenset()
        self._state = state
        return True


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> frozenset[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_FILE:
        raise StoreError(f"{path} is longer than {MAX_FILE} bytes.", hint=_HINT)
    found: set[str] = set()
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.split("#", 1)[0].split()
        try:
            found.update(parse_peer_id(word) for word in words[:1])
        except PeerIdError:
            raise StoreError(f"{path}, line {number}, does not begin with a peer id.", hint=_HINT) from None
    return frozenset(found)


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"Can't read {path}: {(error.strerror or str(error)).lower()}.", hint=_HINT)
