"""Logs, ours and the libraries', are seen by those who ask for them."""

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from peertunnel.cli.run import show_logs
from peertunnel.identity import Identity
from tests.cli.commands import run_pt

LOGGERS = ("", "libp2p")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers.clear()
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.parametrize("name", ["peertunnel.node", "libp2p.host", "another"])
@pytest.mark.parametrize(
    ("verbosity", "seen"),
    [
        (-1, []),
        (0, []),
        (1, []),
        (2, ["INFO", "WARNING", "CRITICAL"]),
        (3, ["DEBUG", "INFO", "WARNING", "CRITICAL"]),
    ],
)
def test_logs(verbosity: int, seen: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_logs(verbosity)
    for level in ("DEBUG", "INFO", "WARNING", "CRITICAL"):
        logging.getLogger(name).log(logging.getLevelName(level), level)
    assert capsys.readouterr().err.split() == seen


def test_the_library_says_nothing_of_its_own_accord(tmp_path: Path) -> None:
    """What it warns of when it is imported late, and a peer hangs up on it, is for logs."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        pool.submit(hang_up)
        place = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}/p2p/{Identity.ephemeral().peer_id}"
        ended = run_pt(tmp_path, "ping", place, "--wait", "1", "--no-mdns")
        listener.shutdown(socket.SHUT_RDWR)
    assert [line.split()[0] for line in ended.stderr.splitlines()] == ["error:", "hint:"], ended.stderr
