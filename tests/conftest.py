"""What every test shares: a skipped test is said aloud at the end, with its reason."""

import signal
from collections import Counter

import pytest


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
