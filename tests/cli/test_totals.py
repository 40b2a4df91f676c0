"""The line at the bottom of the terminal."""

import trio
from trio.testing import MockClock

from peertunnel.cli.totals import Totals
from peertunnel.events import PathChanged, TrafficMeasured, TunnelClosed, TunnelOpened


def test_tunnels_are_counted() -> None:
    totals = Totals()
    for number in (1, 2, 3):
        totals(TunnelOpened(number, "p", "r"))
    totals(TunnelClosed(2, 5, 5, "finished"))
    totals(TunnelClosed(9, 0, 0, "never opened"))
    assert totals.line(0.0) == "2 open of 3  ↑ 0 B  ↓ 0 B  0 B/s"


async def test_bytes_and_rate(mock_clock: MockClock) -> None:
    totals = Totals()
    mock_clock.jump(10)
    totals(TrafficMeasured(1_000, 0))
    mock_clock.jump(1)
    totals(TrafficMeasured(3_000_000, 2_001_000))
    assert totals.line(trio.current_time()) == "0 open of 0  ↑ 3.0 MB  ↓ 2.0 MB  5.0 MB/s"


async def test_an_old_rate_is_no_rate(mock_clock: MockClock) -> None:
    totals = Totals()
    mock_clock.jump(10)
    totals(TrafficMeasured(4_000_000, 0))
    assert totals.line(trio.current_time() + 1.9).endswith("  2.0 MB/s")
    assert totals.line(trio.current_time() + 2.0).endswith("  0 B/s")


async def test_a_burst_is_spread_over_half_a_second(mock_clock: MockClock) -> None:
    totals = Totals()
    mock_clock.jump(10)
    totals(TrafficMeasured(0, 0))
    totals(TrafficMeasured(1_000, 0))
    assert totals.line(trio.current_time()).endswith("  2.0 KB/s")


def test_paths() -> None:
    totals = Totals()
    totals(PathChanged("a", "direct", 0.42))
    assert totals.line(0.0).endswith("/s  direct, 0.4 ms")
    totals(PathChanged("b", "relayed", None))
    assert totals.line(0.0).endswith("/s  2 peers")
    totals(PathChanged("a", "none", None))
    assert totals.line(0.0).endswith("/s  relayed")
    totals(PathChanged("b", "none", None))
    assert totals.line(0.0).endswith("/s")
