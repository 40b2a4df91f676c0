"""The figures as tables, for a terminal and for docs/performance.md."""

from collections.abc import Sequence
from datetime import UTC, datetime

from tests.bench.figures import Figures
from tests.bench.machine import machine, versions
from tests.bench.page import PLOT
from tests.bench.samples import FOREIGN_LIMIT
from tests.bench.subjects import PT
from tests.bench.wanted import PROMISED, verdicts
from tests.bench.workloads import Metric, Unit

_PAGE = """\
# Performance

Written by `tox -e bench` (`python -m tests.bench`): change nothing by hand, run it.

{date}, {machine}.
{versions}.

![Throughput and processor time beside others, and throughput by round-trip time]({plot})

## How it is measured

Client, tunnel and server are processes on one machine, on loopback; `pt` runs as anybody would run it, `pt tcp` and
`pt bind --peer`, on the system's own Python where there is one: that is built with a profile, as Go and Rust peers are
with optimisation, and a Python compiled by hand without takes up to a quarter more of what small messages cost. Everything is started once, then {rounds} rounds measure each workload with each subject in turn, and
the tables show medians. A sample during which *other* processes used more than {limit} cores is taken again; of the
{samples} samples that counted, {disturbed} were disturbed all the same. Where that befell most samples of a figure that
the clock measured, it is marked ~ and says little; processor time and memory hardly depend on others.

- *send* is from the consumer's client to the provider's server, *recv* the other way; {mib} MiB in all, over one or
  eight connections at once. Byte counts are compared at both ends, and at the start of each round 32 MiB of random
  bytes go each way with their SHA-256.
- *CPU* is the processor time of both ends of the tunnel together, without client and server: for a GiB, for one echo,
  for one tunnel.
- *echo* is one byte there and back on an open connection; *tunnels* is connect, one byte there and back, close.
- *beside send* and *beside recv*: echoes while a bulk transfer runs over another connection through the same tunnel.
- *largest ÷ smallest share*: how much of its data each of eight streams has moved at the moment when the first one
  ends; what was sent may still lie in buffers.
- *20 ms away*: with a proxy between the two ends that holds bytes back for 10 ms in each direction; for direct TCP it
  stands before the server. *50 ms* and *100 ms* likewise, with half the data; *4 MiB* come
  over a stream of their own on a connection that has carried others, as most do.
- *0.1 % lost*, *1 % lost*: between two network namespaces, with a round trip of so many ms and a line of 100 Mbit/s that
  loses each 1,000th or 100th packet in either direction, with 4 and 2 MiB. In each round all lose the same packets.
- *memory* is resident, of both ends together, as are its bounds; *stalled* streams are filled by a client that does not
  read the echoes. *Starts* are of one process.

{tables}
## `pt` beside the others

How many times the rival's figure `pt` has; bold where `pt` is ahead for certain.

{ratios}
## What is wanted

{wanted}
"""


def page(figures: Figures, names: Sequence[str], missing: dict[str, str], rounds: int, mib: int) -> str:
    """Return the whole of docs/performance.md."""
    return _PAGE.format(
        plot=PLOT.name,
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        versions=versions(),
        rounds=rounds,
        limit=FOREIGN_LIMIT,
        samples=figures.samples,
        disturbed=figures.disturbed or "none",
        mib=mib,
        tables=tables(figures, names) + _notes(figures, missing),
        ratios=ratios(figures, names),
        wanted=judgement(figures),
    )


def tables(figures: Figures, names: Sequence[str]) -> str:
    """Return a table for each unit that was measured."""
    parts = []
    for unit, metrics in _columns(figures):
        rows = [(name, [_figure(figures, name, metric) for metric in metrics]) for name in names]
        rows = [(name, cells) for name, cells in rows if set(cells) != {_NONE}]
        parts.append(_table(unit.label, [metric.name for metric in metrics], rows))
    return "\n".join(parts)


def ratios(figures: Figures, names: Sequence[str]) -> str:
    """Return the tables of `pt` as a multiple of each rival."""
    rivals = [name for name in names if name != PT.name]
    parts = []
    for unit, metrics in _columns(figures):
        rows = [(name, [_ratio(figures, name, metric) for metric in metrics]) for name in rivals]
        rows = [(name, cells) for name, cells in rows if set(cells) != {_NONE}]
        if rows:
            parts.append(_table(f"{unit.label}, `pt` ÷", [metric.name for metric in metrics], rows))
    return "\n".join(parts)


def judgement(figures: Figures) -> str:
    """Return a line for each promise."""
    return "\n".join(f"- {verdict.words}" for verdict in verdicts(PROMISED, figures))


_NONE = "-"
_SMALL = 10  # figures below have two digits after the point, whatever their unit


def _columns(figures: Figures) -> list[tuple[Unit, list[Metric]]]:
    metrics = list(dict.fromkeys(metric for _, metric in figures.values))
    columns = [(unit, [metric for metric in metrics if metric.unit is unit]) for unit in Unit]
    return [(unit, found) for unit, found in columns if found]


def _figure(figures: Figures, name: str, metric: Metric) -> str:
    median = figures.median(name, metric)
    if median is None:
        return _NONE
    digits = metric.unit.digits if median >= _SMALL else 2
    return f"{'' if figures.is_trusted(name, metric) else '~'}{median:,.{digits}f}"


def _ratio(figures: Figures, rival: str, metric: Metric) -> str:
    ratio = figures.ratio(PT.name, rival, metric)
    if ratio is None:
        return _NONE
    if not all(figures.is_trusted(name, metric) for name in (PT.name, rival)):
        return f"~{ratio:.2f}"
    ahead = ratio > 1 if metric.unit.more_is_better else ratio < 1
    return f"**{ratio:.2f}**" if ahead else f"{ratio:.2f}"


def _table(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [(corner, *columns), *((name, *cells) for name, cells in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            (str.rjust if at else str.ljust)(cell, width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *rest))} |\n"

    rule = [("-" * (width - 1) + ":") if at else "-" * width for at, width in enumerate(widths)]
    return line(lines[0]) + line(rule) + "".join(map(line, lines[1:]))


def _notes(figures: Figures, missing: dict[str, str]) -> str:
    failed = [f"{name}: {count:,} tunnels failed.\n" for name, count in figures.failed.items() if count]
    lacking = [f"{name}: not measured, {reason}.\n" for name, reason in missing.items()]
    return "".join(f"\n{note}" for note in (*failed, *lacking))
