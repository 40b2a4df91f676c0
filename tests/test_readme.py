"""The README does what it says: each command block is run, in a copy of the checkout, by a user without a history.

Three kinds of blocks: `sh` is run as it stands; `text` is what the `sh` block before it prints, numbers apart;
`console` is a session of several terminals, each line's prompt naming its terminal.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import click
import pytest

from peertunnel import __version__
from peertunnel.cli.main import cli
from tests.tools import need

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".tox", ".*_cache", "venv", ".venv", "build", "dist", "target", "bin", "node_modules"
)
INSTALL_SECONDS = 900  # a slow mirror and, on new Pythons, a C compiler
SESSION_SECONDS = 30
PAGE = b"carried by a tunnel\n"

BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\S*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
DEMO, TESTS = (text for kind, text in BLOCKS if kind == "sh")
SESSIONS = [text for kind, text in BLOCKS if kind == "console"]

pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("user") / "peertunnel"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCES)
    return copy


@pytest.fixture(scope="module")
def user(checkout: Path) -> dict[str, str]:
    """The environment of somebody with an empty home, who knows this Python as python3, and keeps off the public DHT."""
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(("LANG", "LC_", "PIP_", "SSL_"))
    }
    path = f"{checkout}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))
    return kept | {"HOME": str(checkout.parent), "PATH": path, "PIP_CACHE_DIR": cache, "PT_DHT": "0"}


@pytest.fixture(scope="module")
def pipx(checkout: Path, user: dict[str, str]) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """The folder that pipx installs into, and pipx at work, in a copy of its own: two can't build in the same one."""
    (asked,) = re.findall(r"`(pipx install [^`]+)`", README)
    folder = checkout.parent / "pipx"
    shutil.copytree(checkout, copy := folder / "peertunnel", symlinks=True, ignore=NOT_SOURCES)
    tools, places = folder / "tools", {"PIPX_HOME": str(folder), "PIPX_BIN_DIR": str(folder / "bin")}
    script = f"python3 -m venv {tools} && {tools}/bin/pip install --quiet pipx && {tools}/bin/{asked}"
    shell = ["bash", "-euc", script]
    with subprocess.Popen(
        shell, cwd=copy, env=user | places, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as installing:
        yield folder, installing
        installing.terminate()


@pytest.fixture(scope="module")
def demo(checkout: Path, user: dict[str, str]) -> str:
    """Run the first command: its output, and `pt` on the user's path from then on."""
    shell = ["bash", "-euc", DEMO]
    ran = subprocess.run(shell, cwd=checkout, env=user, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)


@pytest.fixture
def page() -> Iterator[int]:
    """A web server's port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


class Session:
    """Several terminals: what runs on in each of them, and the link that one of them showed."""

    def __init__(self, folder: Path, user: dict[str, str]) -> None:
        self._folder = folder
        self._user = user
        self._deadline = time.monotonic() + SESSION_SECONDS
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def type(self, command: str) -> bytes:
        """Type a command into a terminal; give what it prints if it ends by itself."""
        if "pk://" in command:
            command = re.sub(r"pk://[^\s']+", self._link(), command)
        if command.startswith("curl "):
            return self._fetch(shlex.split(command))
        screen = self._folder / str(len(self._running))
        with screen.open("wb") as output:
            process = subprocess.Popen(shlex.split(command), env=self._user, stdout=output, stderr=output)
        self._running.append((process, screen))
        return b""

    def interrupt(self) -> list[int]:
        """Press Ctrl-C everywhere and give the exit codes."""
        for process, _ in self._running:
            process.send_signal(signal.SIGINT)
        return [process.wait(SESSION_SECONDS) for process, _ in self._running]

    def _link(self) -> str:
        return self._until(lambda shown: re.search(r"pk://\S+", shown)).group()

    def _fetch(self, curl: list[str]) -> bytes:
        """Fetch as soon as the port is open, which is when a person would see it."""
        port = re.search(r":(\d+)", curl[-1])
        assert port is not None
        self._until(lambda shown: re.search(rf":{port[1]}\b", shown))
        return subprocess.run(
            [*curl, "--silent", "--fail"], env=self._user, stdout=subprocess.PIPE, check=True
        ).stdout

    def _until(self, look: Callable[[str], re.Match[str] | None]) -> re.Match[str]:
        """Read the last terminal until what is looked for stands on it."""
        process, screen = self._running[-1]
        while (found := look(screen.read_text())) is None:
            assert process.poll() is None and time.monotonic() < self._deadline, screen.read_text()
            time.sleep(0.05)
        return found


@pytest.fixture
def session(demo: str, user: dict[str, str], tmp_path: Path) -> Iterator[Session]:
    need("curl")
    opened = Session(tmp_path, user)
    yield opened
    assert set(opened.interrupt()) == {130}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def without_numbers(text: str) -> list[str]:
    return [re.sub(r"\d[\d.,]*", "N", line).rstrip() for line in text.strip().splitlines()]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "text", "console"}


@pytest.mark.usefixtures("pipx")  # to be installed meanwhile
def test_demo_prints_what_the_readme_shows(demo: str) -> None:
    (shown,) = (without_numbers(text) for kind, text in BLOCKS if kind == "text")
    assert without_numbers(demo)[-len(shown) :] == shown


def test_pipx_installs_it_too(pipx: tuple[Path, subprocess.Popen[str]]) -> None:
    folder, installing = pipx
    said, _ = installing.communicate()
    assert installing.returncode == 0, said
    shown = subprocess.run([folder / "bin/pt", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    assert shown.stdout == f"pt {__version__}\n"


@pytest.mark.parametrize("text", SESSIONS, ids=lambda text: text.split()[2])
def test_session_carries_the_page(text: str, session: Session, page: int) -> None:
    ports = {"8000": page, "9000": free_port()}
    # At once: one may contain the other.
    text = re.sub("|".join(ports), lambda found: str(ports[found[0]]), text)
    printed = [session.type(line.partition("$ ")[2]) for line in text.splitlines()]
    assert printed[-1] == PAGE


def test_tests_are_run_as_in_ci() -> None:
    (asked,) = re.findall(r"tox( -e \w+)$", TESTS.strip())
    assert (ROOT / ".ci/run").read_text().rstrip().endswith(f"tox -qq{asked}")


def test_ci_installs_what_the_readme_asks_for() -> None:
    (asked,) = re.findall(r"apt install ([\w -]+)`", README)
    assert set(asked.split()) <= set((ROOT / ".ci/run").read_text().split())


def test_every_option_shown_is_understood() -> None:
    for name, options in re.findall(r"\bpt ([a-z]+)([^`\n]*)", README):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = {
            known for parameter in command.params for known in [*parameter.opts, *parameter.secondary_opts]
        }
        assert set(re.findall(r"--[a-z-]+", options)) <= known, name


@pytest.mark.parametrize(
    "document", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name
)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
