"""Peers that have proven themselves before: a file with a line for each, as ssh's known_hosts is one.

    LABEL PEERID DATE

The label stands for a service and tells nobody its id. Several programs may read and write the file at a time.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from peertunnel.errors import StoreError, shortage
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id
from peertunnel.store import MAX_PRIVATE, read_private, write_private

_LABEL_DIGITS = 32  # hexadecimal


class Verdict(Enum):
    """What is known of a peer that has proven itself."""

    NEW = "new"  # nobody is known for this service
    SAME = "same"
    CHANGED = "changed"  # others are


class KnownPeers:
    """The peers in a file.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, label: str, peer_id: str) -> Verdict:
        """Compare a peer that has proven itself with those known for a service; raises StoreError."""
        known = {known for service, known in self._lines() if service == label}
        if not known:
            return Verdict.NEW
        return Verdict.SAME if peer_id in known else Verdict.CHANGED

    def remember(self, label: str, peer_id: str, *, beside: bool) -> bool:
        """Add a peer to those known for a service, `beside` others or only if there are none.

        Returns whether it is known now; another program may have been faster. Raises StoreError.
        """
        with self._locked():
            verdict = self.check(label, peer_id)
            if verdict is Verdict.SAME or (verdict is Verdict.CHANGED and not beside):
                return verdict is Verdict.SAME
            before = self._content()
            if before and not before.endswith(b"\n"):
                before += b"\n"  # whoever has edited the file left none
            line = f"{label} {peer_id} {datetime.now(UTC).date().isoformat()}\n"
            write_private(self._path, _fitting(before + line.encode()))
            return True

    def _content(self) -> bytes:
        try:
            return read_private(self._path) or b""
        except StoreError as error:
            error.hint = error.hint or "Move the file away to know nobody any more."
            raise

    def _lines(self) -> list[tuple[str, str]]:
        return [
            self._parse(number, line)
            for number, line in enumerate(self._content().decode(errors="replace").splitlines(), 1)
            if line.strip() and not line.startswith("#")
        ]

    def _parse(self, number: int, line: str) -> tuple[str, str]:
        label, _, rest = line.strip().partition(" ")
        try:
            if len(label) != _LABEL_DIGITS or not set(label) <= set("0123456789abcdef"):
                raise ValueError
            return label, parse_peer_id(rest.partition(" ")[0])
        except (PeerIdError, ValueError):
            raise StoreError(
                f"{self._path}, line {number}, is not a service's label and a peer id.",
                hint="Remove the line, or the whole file to know nobody any more.",
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other programs from writing between our reading and our writing."""
        lock = self._path.with_name(f".{self._path.name}.lock")
        with contextlib.ExitStack() as stack:
            try:
                lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)  # some network file systems have none
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                hint = shortage(error) or "Check the directory's permissions."
                raise StoreError(f"Can't write {lock}: {reason}.", hint=hint) from error
            yield


def _fitting(content: bytes) -> bytes:
    """Leave out the oldest lines of a file that would be too long to be read again: some 650 services fit."""
    lines = content.splitlines(keepends=True)
    while sum(map(len, lines)) > MAX_PRIVATE:
        del lines[0]
    return b"".join(lines)
