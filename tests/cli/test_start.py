"""How soon a command does its work, and what it may use for it."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import Started, environment
from tests.tools import PT

TRIES = 5  # of which the best one counts: the machine may be busy with something else

pytestmark = pytest.mark.alone


def test_a_local_port_is_open_soon(tmp_path: Path) -> None:
    took = []
    for _ in range(TRIES):
        began = time.monotonic()
        with Started(tmp_path, "bind", "--port", "0", PT_ID="heron") as consumer:
            consumer.until("Listening on")
            took.append(time.monotonic() - began - queued(consumer.process.pid))
    assert min(took) < 1.5, took


def queued(pid: int) -> float:
    """Give the seconds for which a process was ready, and others had the processor: see proc(5)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def test_a_node_that_runs_is_not_searched_for_garbage(tmp_path: Path) -> None:
    """A full collection would hold every tunnel up; of what comes later there is little to look through."""
    lines = (
        "import gc, trio",
        "from peertunnel.cli.run import Session",
        "from peertunnel.config import Config",
        "from peertunnel.identity import Identity",
        "async def main():",
        "    alone = Config(listen=('/ip4/127.0.0.1/tcp/0',), mdns=False, dht=False, portmap=False)",
        "    async with Session(alone, Identity.ephemeral()).node():",
        "        assert len(gc.get_objects()) < 2000 < gc.get_freeze_count(), len(gc.get_objects())",
        "trio.run(main)",
    )
    run = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(run, env=environment(tmp_path), check=True, timeout=60)


def test_help_is_there_at_once(tmp_path: Path) -> None:
    pt, took = shutil.which("pt", path=str(Path(sys.executable).parent)), []
    command = [pt] if pt else PT
    for _ in range(2 * TRIES):
        began = time.monotonic()
        subprocess.run([*command, "--help"], env=environment(tmp_path), capture_output=True, check=True)
        took.append(time.monotonic() - began)
    assert min(took) < 0.15, took


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of the limits")
def test_as_many_files_may_be_open_as_the_system_allows(tmp_path: Path) -> None:
    few = ["sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh"]
    with Started(tmp_path, "bind", "--port", "0", prefix=few, PT_ID="heron") as consumer:
        consumer.until("Listening on")
        limits = Path(f"/proc/{consumer.process.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
        soft, hard = line.split()[3:5]
        assert soft == hard
