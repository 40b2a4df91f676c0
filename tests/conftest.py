"""What every test shares: a skipped test is said aloud at the end, with its reason, and a busy machine is not a bug."""

import signal
from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


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
