"""docs/errors.md tells the truth: every line of its first table is run, and every code has its meaning there."""

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from peertunnel import errors
from tests.cli.commands import run_pt

DOCUMENT = (Path(__file__).parents[2] / "docs/errors.md").read_text()
ROWS = re.findall(r"^\| `(pt [^`]+)` \| (.+) \| (.+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)
FILES = {
    "empty.txt": b"",
    "binary.txt": b"\xff\xfe",
    "broken.toml": b"wait = = 3\n",
    "number.toml": b"wait = " + b"9" * 5000,
    "deep.toml": b"wait = " + b"[" * 3000,
    "unknown.toml": b"# mine\nprot = 22\n",
    "wrong.toml": b'wait = "long"\n',
    "open.key": b"",
    "notes.key": b"not a key\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644 if name == "open.key" else 0o600)
    return tmp_path


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


@pytest.mark.parametrize(("command", "sentence", "hint", "code"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_row(command: str, sentence: str, hint: str, code: str, folder: Path, taken: str) -> None:
    words = [word.replace("5432", taken) for word in shlex.split(command)[1:]]
    ended = run_pt(folder / "home", *words, cwd=folder)
    told = f"error: {sentence}\n hint: {hint}\n".replace("5432", taken)
    stderr = re.sub(r"\Awarning: The id is easy to guess .*\n", "", ended.stderr)  # the document's are short
    assert (ended.returncode, stderr, ended.stdout) == (int(code), told, "")


def test_the_table_is_read() -> None:
    assert len(ROWS) == DOCUMENT.count("| `pt ") > 50


def test_every_exit_code_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \| ", DOCUMENT, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.PeerTunnelError)}
    assert explained == raised | {0}


def test_an_error_is_the_last_json_line(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "tcp", "--json", "--port", "0", "--id", "heron")
    assert ended.stdout == (
        '{"kind":"error","code":2,"message":"Nothing can be reached at port 0.",'
        '"hint":"Give the port that the service listens on."}\n'
    )
    assert (ended.returncode, ended.stderr) == (2, "")


def test_an_option_that_does_not_exist_is_told_in_json_too(tmp_path: Path) -> None:
    assert '"code":2' in run_pt(tmp_path, "tcp", "--prot", "22", "--json").stdout


def test_json_errors_keep_off_the_data_of_stdio(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "bind", "--stdio", "--json", "--id", "heron", "--wait", "0.2", "--no-mdns")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert '"code":3' in ended.stderr


def test_an_error_in_the_environment_names_the_value(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "info", PT_WAIT="soon")
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (2, "error: 'soon' is not a time.")


def test_a_traceback_is_shown_only_to_who_asks(tmp_path: Path) -> None:
    assert "Traceback" in run_pt(tmp_path, "info", "--config", "missing.toml", "-vv").stderr
    assert "Traceback" not in run_pt(tmp_path, "info", "--config", "missing.toml", "-v").stderr
