"""docs/performance.svg: throughput and processor time by rival, and throughput by distance."""

import math
from collections.abc import Sequence

from tests.bench.far import CURVE, FARTHER
from tests.bench.figures import Figures
from tests.bench.subjects import DIRECT
from tests.bench.svg import Drawing
from tests.bench.workloads import NEAREST, Metric, Unit, received

_OURS, _THEIRS = "#0969da", "#8c959f"
_COLOURS = (_OURS, "#bc4c00", _THEIRS)  # of the curves
_WIDTH = 860  # pixels, as are all of these
_MARGIN = 16
_NAMES = 150  # for the names beside the bars
_BARS = 230  # the longest bar
_ROW = 22
_BAR = 14
_CURVES = 220  # height of the lower part
_TOP = 30  # for a heading
_LINE = 13  # of text

_BULK = received(0)
_PANELS = (_BULK, Metric(_BULK.name, Unit.CPU_S_PER_GIB))


def plot(figures: Figures, names: Sequence[str]) -> str:
    """Return the drawing; direct TCP has no bar, as it would leave the others none."""
    rivals = [name for name in names if name != DIRECT.name and figures.median(name, _BULK)]
    rivals.sort(key=lambda name: -(figures.median(name, _BULK) or 0))
    upper = _MARGIN + _TOP + _ROW * len(rivals)
    drawing = Drawing(
        _WIDTH, upper + _TOP + _CURVES + 3 * _MARGIN, "Throughput and processor time of tunnels"
    )
    for at, metric in enumerate(_PANELS):
        _bars(drawing, _MARGIN + at * (_WIDTH // 2), figures, rivals, metric)
    _curves(drawing, upper + _MARGIN, figures)
    return str(drawing)


def _bars(drawing: Drawing, left: float, figures: Figures, names: Sequence[str], metric: Metric) -> None:
    """Draw a bar for each name, which is written beside it."""
    sense = "more" if metric.unit.more_is_better else "less"
    heading = f"{metric.name}: {metric.unit.label}, {sense} is better"
    drawing.text(left, _MARGIN + 14, heading, kind="heading")
    values = {name: value for name in names if (value := figures.median(name, metric))}
    for row, (name, value) in enumerate(values.items()):
        top = _MARGIN + _TOP + row * _ROW
        length = _BARS * value / max(values.values()) * 0.8  # the figure stands behind the bar
        drawing.text(left + _NAMES - 6, top + _BAR - 2, name, "end")
        drawing.bar(left + _NAMES, top, length, _BAR, _OURS if name.startswith("pt") else _THEIRS)
        drawing.text(left + _NAMES + length + 6, top + _BAR - 2, f"{value:,.{metric.unit.digits}f}")


def _curves(drawing: Drawing, top: float, figures: Figures) -> None:
    """Draw throughput by distance, on a scale of powers of ten."""
    heading = "recv, 1 stream: MB/s by round-trip time, more is better"
    drawing.text(_MARGIN, top + 14, heading, kind="heading")
    distances = (0, NEAREST, *FARTHER)
    found = {
        subject.name: {ms: value for ms in distances if (value := figures.median(subject.name, received(ms)))}
        for subject in CURVE
    }
    values = [value for curve in found.values() for value in curve.values()]
    if not values:
        return
    least, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    left, right, bottom = _MARGIN + 60, _WIDTH - _NAMES, top + _TOP + _CURVES

    def x(milliseconds: float) -> float:
        return left + (right - left) * milliseconds / distances[-1]

    def y(value: float) -> float:
        return bottom - _CURVES * (math.log10(value) - least) / max(1, most - least)

    for power in range(least, most + 1):
        drawing.rule(left, y(10**power), right, y(10**power))
        drawing.text(left - 6, y(10**power) + 4, f"{10.0**power:,g}", "end")
    for milliseconds in distances:
        drawing.text(x(milliseconds), bottom + 16, f"{milliseconds} ms", "middle")
    ends: list[tuple[float, float, str]] = []
    for (name, curve), colour in zip(found.items(), _COLOURS, strict=True):
        points = [(x(milliseconds), y(value)) for milliseconds, value in curve.items()]
        if points:
            drawing.curve(points, colour)
            ends.append((points[-1][1] + 4, points[-1][0] + 10, name))
    lowest = -math.inf
    for height, beside, name in sorted(ends):
        lowest = max(height, lowest + _LINE)  # one below the other where curves end together
        drawing.text(beside, lowest, name)
