"""Network namespaces: entered by a thread, worked in by tools, and emptied of processes."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.nat.lab.kinds import LabError

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
TOOLS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

_libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on

T = TypeVar("T")


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Do something in a namespace, in a thread that alone moves there: sockets stay where they were made."""

    def enter_and_work() -> T:
        _enter(namespace)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_work).result()


def _enter(namespace: str) -> None:
    descriptor = os.open(FOLDER / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns({namespace}): {os.strerror(number)}")
    finally:
        os.close(descriptor)


def entering(namespace: str, words: Sequence[str]) -> list[str]:
    """Return the command that becomes another one inside a namespace, with the same pid."""
    return ["nsenter", f"--net={FOLDER / namespace}", *words]


def run(words: Sequence[str], text: str = "", namespace: str | None = None) -> str:
    """Run a tool to its end and give what it printed; raises LabError when it fails."""
    command = list(words) if namespace is None else entering(namespace, words)
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": TOOLS, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{text}")
    return done.stdout


def ip(lines: Iterable[str], namespace: str | None = None) -> None:
    """Run commands of ip(8), all at once."""
    run(["ip", "-force", "-batch", "-"], "".join(f"{line}\n" for line in lines), namespace)


def nft(rules: str, namespace: str) -> None:
    """Load rules, all of them or none."""
    run(["nft", "-f", "-"], rules, namespace)


def setting(namespace: str, key: str, value: int) -> None:
    """Set a sysctl of a namespace."""
    path = Path("/proc/sys", key)
    inside(namespace, lambda: path.write_text(str(value)))


def namespaces(prefix: str) -> list[str]:
    """Return the namespaces of a lab."""
    return sorted(path.name for path in FOLDER.glob(f"{prefix}-*"))


def processes(names: Iterable[str]) -> list[int]:
    """Return the pids of what runs in these namespaces, never in the one that asks."""
    wanted = set()
    for name in names:
        with suppress(OSError):
            wanted.add(_identity(FOLDER / name))
    wanted.discard(_identity(Path("/proc/self/ns/net")))
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _identity(folder / "ns/net") in wanted and _state(folder) != "Z":
                found.append(int(folder.name))
    return found


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _state(folder: Path) -> str:
    return (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
