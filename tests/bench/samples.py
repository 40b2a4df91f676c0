"""One sample: a run of the load generator through one tunnel, and what others did to the machine meanwhile."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench.programs import Failed, program
from tests.bench.tunnel import Tunnel
from tests.bench.usage import Others, processor_seconds
from tests.bench.workloads import Metric, Workload
from tests.interop.build import GO

FOREIGN_LIMIT = 0.3  # cores that others may use during a sample; more, and it is taken again
_TRIES = 4  # of one sample; then the quietest counts
_GLANCE = 0.25  # seconds to look whether the machine is quiet
_HEAD_START = 0.5  # seconds for the windows of a load to open before another one is measured beside it
_LOAD_SECONDS = 120  # a load that takes longer hangs


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of the load generator gave.

    Attributes:
        failed: connections that were refused or cut.
        foreign: cores that others used meanwhile.
    """

    figures: dict[Metric, float]
    failed: int
    foreign: float

    @property
    def is_disturbed(self) -> bool:
        """Whether others used so much that the figures mean little."""
        return self.foreign > FOREIGN_LIMIT


class Patience:
    """How long a run may wait for the machine to become quiet, in all; nobody waits for ever on a busy one.

    Args:
        seconds: for waiting and for repeated samples together.
        at_once: seconds to wait before one sample, at most.
    """

    def __init__(self, seconds: float, at_once: float = 5.0) -> None:
        self._left = seconds
        self._at_once = at_once

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - began

    @property
    def is_left(self) -> bool:
        """Whether there is time for more."""
        return self._left > 0

    def wait_for_quiet(self) -> None:
        """Wait until others leave the machine alone, as long as the patience lasts."""
        with self.spending():
            deadline = time.monotonic() + min(self._left, self._at_once)
            while time.monotonic() < deadline:
                others = Others()
                time.sleep(_GLANCE)
                if others.cores() <= FOREIGN_LIMIT:
                    return


@contextmanager
def load_target(entering: Sequence[str] = ()) -> Iterator[str]:
    """Run the load generator's far end, where some words before its command enter, and yield its host:port."""
    with program([*entering, str(GO.binary), "bench-server"]) as server:
        yield server.event("listening")["local"]


def sample(name: str, tunnel: Tunnel, workload: Workload) -> Sample:
    """Put a tunnel under load once.

    Args:
        name: the subject's, for the error.

    Raises:
        Failed: bytes were lost or changed, or every connection failed.
    """
    command = [*_client(tunnel), *workload.arguments]
    others, before = Others(), processor_seconds(tunnel.pids)
    with _beside(tunnel, workload.beside):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LOAD_SECONDS)
    used, foreign = processor_seconds(tunnel.pids) - before, others.cores()
    if done.returncode:
        raise Failed(f"{workload.name} through {name}: {done.stdout}{done.stderr}")
    answer = json.loads(done.stdout)
    figures = workload.figures(answer, used if tunnel.pids else None)
    return Sample(figures, answer.get("failed", 0), foreign)


def _client(tunnel: Tunnel) -> list[str]:
    return [*tunnel.entering, str(GO.binary), "bench-client", "--addr", tunnel.address]


@contextmanager
def _beside(tunnel: Tunnel, arguments: tuple[str, ...]) -> Iterator[None]:
    """Run another load meanwhile, if there are arguments for one; what it achieves counts for nothing."""
    if not arguments:
        yield
        return
    with program([*_client(tunnel), *arguments]):
        time.sleep(_HEAD_START)
        yield


def quietest(take: Callable[[], Sample], patience: Patience) -> Sample:
    """Take a sample, and again while others disturb it; return the one that they disturbed least."""
    patience.wait_for_quiet()
    best = take()
    for _ in range(_TRIES - 1):
        if not best.is_disturbed or not patience.is_left:
            break
        patience.wait_for_quiet()
        with patience.spending():
            best = min(best, take(), key=lambda sample: sample.foreign)
    return best
