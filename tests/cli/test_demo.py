"""`pt demo`: five lines and nothing left behind, also when it is interrupted or a program of its dies."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cli.commands import POLL, SECONDS, Started, run_pt

LINES = [
    r"1\. A web server has a page and a file of 64 MiB\. \([\d.]+ s\)",
    r"2\. A provider offers the web server under a random name\. \([\d.]+ s\)",
    r"3\. A consumer has found the provider by that name, over mDNS; the path is direct\. \([\d.]+ s\)",
    r"4\. The page came through the tunnel\. \([\d.]+ s\)",
    r"5\. The file came through the tunnel at \d+ MB/s, and its SHA-256 is right\. \([\d.]+ s\)",
]


def programs(demo: Started) -> dict[str, int]:
    """Give the programs that a demo has started, by name, with their process ids."""
    ids = Path(f"/proc/{demo.process.pid}/task/{demo.process.pid}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in ids}
    names = ("http.server", "tcp", "bind")
    return {name: pid for pid, words in lines.items() for name in names if name in words}


def wait_for(demo: Started, *names: str) -> list[int]:
    """Wait until a demo has started programs, and give their process ids.

    While processes come and go, one look at the list of children may miss some: see proc(5).
    """
    deadline = time.monotonic() + SECONDS
    while not set(names) <= set(running := programs(demo)):
        assert time.monotonic() < deadline
        time.sleep(POLL)
    return [running[name] for name in names]


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_five_lines(tmp_path: Path) -> None:
    ended = run_pt(tmp_path / "home", "demo", TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    printed = ended.stdout.splitlines()
    assert len(printed) == len(LINES)
    for line, pattern in zip(printed, LINES, strict=True):
        assert re.fullmatch(pattern, line)
    assert list(tmp_path.iterdir()) == []


def test_the_user_s_own_settings_don_t_matter(tmp_path: Path) -> None:
    ended = run_pt(
        tmp_path, "demo", "--json", PT_ID="mine", PT_MDNS="0", PT_WAIT="0", http_proxy="http://[::1]:1"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    times = [step["seconds"] for step in steps]
    assert times == sorted(times)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: int, tmp_path: Path) -> None:
    with Started(tmp_path / "home", "demo", TMPDIR=str(tmp_path)) as demo:
        started = wait_for(demo, "http.server", "tcp", "bind")
        assert demo.end(number) == 130
        assert demo.errors.endswith("Interrupted.\n")
    assert not any(is_running(pid) for pid in started)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_told_in_json_alone(tmp_path: Path) -> None:
    with Started(tmp_path / "home", "demo", "--json", TMPDIR=str(tmp_path)) as demo:
        wait_for(demo, "http.server")
        assert demo.end(signal.SIGINT) == 130
        assert json.loads(demo.output.splitlines()[-1])["code"] == 130
        assert demo.errors == ""


@pytest.mark.parametrize(
    ("program", "name"),
    [("http.server", "The web server"), ("tcp", "The provider"), ("bind", "The consumer")],
)
def test_a_program_that_dies_is_named(program: str, name: str, tmp_path: Path) -> None:
    with Started(tmp_path / "home", "demo", TMPDIR=str(tmp_path)) as demo:
        os.kill(wait_for(demo, program)[0], signal.SIGKILL)
        assert demo.process.wait(SECONDS) == 1
        assert demo.errors.startswith(f"error: {name} ended before its time.\n hint: ")
    assert list(tmp_path.iterdir()) == []
