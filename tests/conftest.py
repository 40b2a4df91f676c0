"""What every test shares: a skipped test is said aloud at the end, with its reason, and a busy machine is not a bug."""

import fcntl
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Files that nobody writes, to be locked.
DOOR, ROOM = Path(__file__), Path(__file__).with_name("__init__.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of a thousand streams take longer than CI can wait."""
    text = "how long each test of a thousand streams runs (default: 5)"
    parser.addoption("--soak", type=float, default=5.0, metavar="SECONDS", help=text)
    parser.addoption("--seed", type=int, help="what decides in tests of a thousand streams (default: chance)")


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> float:
    """How long a test of a thousand streams runs."""
    return float(request.config.getoption("--soak"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each reason why tests were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in Counter(report.longrepr[2] for report in skipped).items():
        terminalreporter.write_line(f"NOT TESTED: {reason} ({count} tests)", red=True, bold=True)


def pytest_configure() -> None:
    """Give SIGINT and SIGHUP their defaults, which the programs under test inherit: nohup and `&` have them ignored."""
    for number, wanted in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, wanted)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a skipped test keep its reason where a nursery has wrapped it, and pytest-trio has skipped it anew."""
    report = yield
    reason = _reason(call.excinfo.value) if report.skipped and call.excinfo else ""
    if reason and isinstance(report.longrepr, tuple):
        report.longrepr = (*report.longrepr[:2], f"Skipped: {reason}")
    return report


def _reason(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, pytest.skip.Exception) and error.msg:
            return error.msg
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__context__
    return ""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have a test that is marked `alone`, since it measures, wait until others have ended, and others wait for it.

    Files are run side by side by pytest-xdist: most tests wait most of the time.
    """
    with DOOR.open() as door, ROOM.open() as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits here for an empty room lets nobody else in
        fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # To close it would not do: processes that were forked meanwhile have it open, too.
            fcntl.flock(room, fcntl.LOCK_UN)
