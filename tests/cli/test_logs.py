"""Logs, ours and the libraries', are seen by those who ask for them."""

import logging
from collections.abc import Iterator

import pytest

from peertunnel.cli.run import show_logs

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
