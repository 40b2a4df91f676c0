"""What a lab leaves on the machine, and how it goes away again, whoever was killed."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.nat.lab.kinds import LabError
from tests.nat.lab.namespaces import ip, namespaces, processes

FOLDER = Path("/run/natlab")
GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL
KILLED_SECONDS = 3.0  # until what was killed must be gone
POLL_SECONDS = 0.02


@contextmanager
def alone() -> Iterator[None]:
    """Keep other labs from making and deleting namespaces meanwhile."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def note(prefix: str) -> None:
    """Write down whose lab this is, before anything of it exists."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = record(prefix).with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({"pid": os.getpid(), "started": _started(os.getpid())}))
    new.replace(record(prefix))


def record(prefix: str) -> Path:
    """Return where a lab's owner is written down."""
    return FOLDER / f"{prefix}.json"


def remove(prefix: str) -> None:
    """End what runs in a lab's namespaces, and only there, and delete them; safe to call again, by anybody."""
    if namespaces(prefix):
        _end_processes(prefix)
        with alone():
            names = namespaces(prefix)
            if names:
                with suppress(LabError):  # two who remove the same lab
                    ip(f"netns del {name}" for name in names)
    record(prefix).unlink(missing_ok=True)


def sweep() -> None:
    """Remove the labs whose owners were killed together with their keepers."""
    for path in FOLDER.glob("*.json"):
        with suppress(OSError, ValueError):
            owner = json.loads(path.read_text())
            if _started(owner["pid"]) != owner["started"]:
                remove(path.stem)


def _end_processes(prefix: str) -> None:
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILLED_SECONDS)):
        for pid in processes(namespaces(prefix)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while processes(namespaces(prefix)):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        else:
            return


def _started(pid: int) -> int:
    """Return when a process began, which tells it from a later one with its pid; 0 for none."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    return 0
