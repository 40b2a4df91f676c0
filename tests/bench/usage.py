"""What processes use, from /proc: processor time and memory of families of processes, and what is left for others."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")  # per second, the unit of /proc/*/stat
_PROC = Path("/proc")


class _Process(NamedTuple):
    parent: int
    seconds: float


def _stat(pid: int) -> _Process | None:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has ended
    # Fields 4 and 14 to 17 of proc(5): the parent, and user and system time of the process and its reaped children.
    return _Process(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def _family(roots: Iterable[int]) -> dict[int, _Process]:
    """Return these processes and all that descend from them."""
    living = {int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()}
    processes = {pid: process for pid in living if (process := _stat(pid))}
    family = {pid for pid in roots if pid in processes}
    while found := {pid for pid, process in processes.items() if process.parent in family} - family:
        family |= found
    return {pid: processes[pid] for pid in family}


def processor_seconds(roots: Iterable[int]) -> float:
    """Return the processor time that these processes and their descendants, living or reaped, have used so far."""
    return sum(process.seconds for process in _family(roots).values())


def resident_bytes(roots: Iterable[int], peak: bool = False) -> int:
    """Return the resident memory of these processes and their descendants: now, or each at its peak."""
    label = "VmHWM:" if peak else "VmRSS:"
    total = 0
    for pid in _family(roots):
        with contextlib.suppress(FileNotFoundError):  # it has ended since, as sshd's helpers do after a login
            for line in (_PROC / str(pid) / "status").read_text().splitlines():
                if line.startswith(label):
                    total += int(line.split()[1]) * 1024
    return total


def _busy_seconds() -> float:
    """Return for how long the cores have been busy in all, or were taken by the hypervisor."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, (_PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


class Others:
    """Watches how many cores everybody but this process and its descendants uses from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = self._used()

    def cores(self) -> float:
        """Return the mean number of cores since the start."""
        return max(0.0, (self._used() - self._before) / (time.monotonic() - self._began))

    @staticmethod
    def _used() -> float:
        return _busy_seconds() - processor_seconds([os.getpid()])
