"""STUB until the real one lands."""
from enum import Enum
from pathlib import Path


class Verdict(Enum):
    NEW = 0
    SAME = 1
    CHANGED = 2


class KnownPeers:
    def __init__(self, path: Path) -> None:
        self._known: dict[str, set[str]] = {}

    def check(self, label: str, peer_id: str) -> Verdict:
        known = self._known.get(label)
        return Verdict.NEW if not known else Verdict.SAME if peer_id in known else Verdict.CHANGED

    def remember(self, label: str, peer_id: str) -> None:
        self._known.setdefault(label, set()).add(peer_id)
