"""`pt` as a process: run to its end, or opened and talked to."""

import os
import subprocess
import sys
from pathlib import Path

PT = [sys.executable, "-m", "peertunnel"]
SECONDS = 60  # for a command that ends by itself, on a busy machine


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Give an environment without the user's own PT_ variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PT_")}
    return {**kept, "PT_HOME": str(home), **variables}


def run_pt(
    home: Path, *arguments: str, data: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PT, *arguments],
        input=data,
        cwd=cwd,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
