"""Tests that measure have the machine to themselves, though files are run side by side."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests import conftest

MEASURES = """
import time
from pathlib import Path
import pytest

def test_begins_when_others_are_at_work():
    while not Path("forked").exists():
        time.sleep(0.01)

@pytest.mark.alone
def test_measures():
    for _ in range(50):
        assert not Path("busy").exists()
        time.sleep(0.01)
"""
WORKS = """
import os
import signal
import time
from pathlib import Path
import pytest

@pytest.fixture(scope="module", autouse=True)
def forked():
    pid = os.fork()
    if not pid:
        signal.pause()
    Path("forked").touch()
    yield
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

@pytest.mark.parametrize("number", range(50))
def test_works(number):
    Path("busy").touch()
    time.sleep(0.01)
    Path("busy").unlink()
"""


def test_who_measures_is_alone(tmp_path: Path) -> None:
    for name in ("conftest.py", "__init__.py"):
        shutil.copy(Path(conftest.__file__).with_name(name), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    (tmp_path / "test_works.py").write_text(WORKS)
    for number in range(2):
        (tmp_path / f"test_measures_{number}.py").write_text(MEASURES)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "3", "--dist", "loadfile"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert "54 passed" in done.stdout, done.stdout
