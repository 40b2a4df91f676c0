"""The parts of `pt demo`: what it notices when a step goes wrong."""

import hashlib
import os
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from peertunnel.cli import child, trial
from peertunnel.cli.child import Child, ChildError
from peertunnel.cli.trial import TrialError
from tests.cli.commands import SECONDS, environment

STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Leave the tests' output to the tests."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a web server with a wrong page and a short file."""
    (tmp_path / "index.html").write_text("another page")
    (tmp_path / "file").write_bytes(b"short")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_page_is_noticed(site: str) -> None:
    with pytest.raises(TrialError):
        trial._fetch_page(f"{site}/")


def test_another_file_is_noticed(site: str) -> None:
    with pytest.raises(TrialError, match=r"^5 bytes came out"):
        trial._fetch_file(f"{site}/file", hashlib.sha256(b"long").digest())
    assert trial._fetch_file(f"{site}/file", hashlib.sha256(b"short").digest()) > 0


def test_no_answer_is_noticed() -> None:
    with pytest.raises(ChildError, match="through the tunnel"):
        trial._fetch_page("http://127.0.0.1:1/")


def test_the_file_is_random_and_has_its_digest(tmp_path: Path) -> None:
    digests = {trial._build_site(tmp_path / name) for name in ("a", "b")}
    contents = [(tmp_path / name / "file").read_bytes() for name in ("a", "b")]
    assert {hashlib.sha256(content).digest() for content in contents} == digests
    assert [len(content) for content in contents] == [trial.SIZE] * 2


def start(home: Path, *module: str) -> Child:
    return Child(
        "It", module, {**environment(home), "PYTHONPATH": os.pathsep.join([str(home), *PATHS])}, False
    )


PATHS = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def test_an_error_of_a_program_is_passed_on(tmp_path: Path) -> None:
    told = r"^It failed: Nothing can be reached at port 0\.$"
    with (
        start(tmp_path, "peertunnel", "--json", "tcp", "--port", "0") as running,
        pytest.raises(ChildError, match=told) as caught,
    ):
        running.event("ready", time.monotonic() + SECONDS)
    assert caught.value.hint == "Give the port that the service listens on."


def test_other_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text("""print('{"kind":"a"}\\n{"kind":"b","n":1}')""")
    with start(tmp_path, "talker") as running:
        assert running.event("b", time.monotonic() + SECONDS) == {"kind": "b", "n": 1}


def test_a_program_that_ends_is_noticed(tmp_path: Path) -> None:
    with start(tmp_path, "peertunnel", "--version") as running:
        running.line(time.monotonic() + SECONDS)
        with pytest.raises(ChildError, match=r"^It ended before its time\.$"):
            running.line(time.monotonic() + SECONDS)


def test_a_program_that_is_late_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(600)")
    with start(tmp_path, "sleeper") as running, pytest.raises(ChildError, match=r"^It took too long\.$"):
        running.line(time.monotonic() - 1)


def test_a_program_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "FAREWELL", 0.1)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    with start(tmp_path, "stubborn") as running:
        assert running.line(time.monotonic() + SECONDS) == "here\n"
    assert running._process.returncode == -9
