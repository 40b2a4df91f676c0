"""How long `pt` takes to start: its help, a listening `pt bind`, and the whole of `pt demo`."""

import os
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Figures
from tests.bench.measure import Say
from tests.bench.programs import program
from tests.bench.subjects import PT
from tests.bench.workloads import BIND_START, DEMO, HELP_START

_RUNS = 7
_ALONE = ("--no-mdns", "--no-dht", "--no-portmap")


def measure_starts(figures: Figures, say: Say) -> None:
    """Measure each several times and add to the figures."""
    pt = str(Path(sysconfig.get_path("scripts")) / "pt")
    for number in range(_RUNS):
        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "PT_HOME": home}
            values = {HELP_START: _seconds([pt, "--help"], environment)}
            began = time.monotonic()
            with program(
                [pt, "--json", *_ALONE, "bind", "--port", "0", "--id", "six-words-of-some-other-list"],
                environment,
            ) as bind:
                bind.event("listening")
                values[BIND_START] = time.monotonic() - began
            if number < 3:
                values[DEMO] = _seconds([pt, "demo"], environment)
        figures.add(PT.name, values)
    say("starts " + " ".join(f"{figures.median(PT.name, m):.3f}" for m in (HELP_START, BIND_START, DEMO)))


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
    return time.monotonic() - began
