"""Standard streams that are closed, since a daemon's parent may leave none, or on a full disk."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.commands import LOCALLY, POLL, SECONDS, Started, environment
from tests.cli.test_incidents import told
from tests.tools import PT

FULL = Path("/dev/full")
STRONG = "9f8c3f3a1d5be07c42ad"  # an id that nobody warns of


def run_in_shell(home: Path, arguments: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command with streams as a shell redirects them."""
    script = ["sh", "-c", f'"$@" {arguments} {redirection}', "sh", *PT]
    return subprocess.run(
        script, env=environment(home), capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.parametrize(
    ("command", "redirection", "code", "told"),
    [
        ("info --json", ">&-", 0, ""),
        ("id check", "<&-", 2, "error: There is no tunnel id."),
        ("tcp --port 22", "<&-", 2, "error: There is no tunnel id."),
        ("tcp --port 22 --id heron --ask", "<&-", 2, "error: There is no terminal to ask at."),
        ("tpc", "2>&-", 2, ""),
    ],
)
def test_a_closed_stream(command: str, redirection: str, code: int, told: str, tmp_path: Path) -> None:
    ended = run_in_shell(tmp_path, command, redirection)
    assert (ended.returncode, ended.stdout, ended.stderr.partition("\n")[0]) == (code, "", told)


@pytest.mark.parametrize("redirection", ["<&-", ">&-"])
def test_a_tunnel_through_a_closed_stream(redirection: str, tmp_path: Path) -> None:
    ended = run_in_shell(tmp_path, f"bind --stdio --id {STRONG} {' '.join(LOCALLY)}", redirection)
    sentence = told("`--stdio`: stdin or stdout is closed")
    assert (ended.returncode, ended.stdout) == (2, "") and re.fullmatch(sentence, ended.stderr)


def test_a_tunnel_needs_no_stream(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    listening, deadline = tmp_path / "socket", time.monotonic() + SECONDS
    with Started(tmp_path, "bind", "--listen", f"unix:{listening}", prefix=closed, PT_ID="heron") as consumer:
        while not listening.exists():
            assert consumer.process.poll() is None and time.monotonic() < deadline
            time.sleep(POLL)
        assert consumer.end(signal.SIGTERM) == 130


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "command",
    [
        "info",
        "info --json",
        "id new",
        "--help",
        "--version",
        "completion bash",
        "completion bash --json",
        "share 18080",
        "tcp --port 18080 --json",
    ],
)
def test_a_full_disk(command: str, tmp_path: Path) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*PT, *command.split()],
            env=environment(tmp_path, PT_ID="heron", PT_MDNS="0", PT_P2P_LISTEN="/ip4/127.0.0.1/tcp/0"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    warned = r"(warning: .*\n)*"
    assert re.fullmatch(warned + told("without `--stdio`: stdout is a file on a full disk"), ended.stderr), (
        ended.stderr
    )
    assert ended.returncode == 1


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
def test_an_error_that_stdout_does_not_take_is_told_on_stderr(tmp_path: Path) -> None:
    ended = run_in_shell(tmp_path, "tcp --json", ">/dev/full")
    assert (ended.returncode, ended.stderr.partition("\n")[0]) == (2, "error: Say what to offer, once.")
