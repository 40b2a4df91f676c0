"""The drawing: every figure is in it, within its frame, and it is well-formed."""

from xml.etree import ElementTree

from tests.bench.figures import Figures
from tests.bench.plot import plot
from tests.bench.subjects import DIRECT, GO_NOISE, PT
from tests.bench.workloads import Metric, Unit, received

_SVG = "{http://www.w3.org/2000/svg}"


def _figures() -> Figures:
    figures = Figures()
    for name, value in ((PT.name, 1200.0), (GO_NOISE.name, 600.0), (DIRECT.name, 4000.0), ("a < b", 300.0)):
        figures.add(name, {received(0): value, Metric(received(0).name, Unit.CPU_S_PER_GIB): 600 / value})
    for milliseconds in (20, 50, 100):
        figures.add(PT.name, {received(milliseconds): 2000.0 / milliseconds})
    return figures


def _drawn() -> ElementTree.Element:
    return ElementTree.fromstring(plot(_figures(), [PT.name, GO_NOISE.name, "a < b", DIRECT.name]))


def test_draws_bars_by_figure_and_none_for_what_is_no_tunnel() -> None:
    """Three tunnels, two figures each: lengths are in proportion, and the names are beside them."""
    drawing = _drawn()
    lengths = [float(bar.attrib["width"]) for bar in drawing.iter(f"{_SVG}rect")]
    assert len(lengths) == 6
    assert [round(length / lengths[0], 2) for length in lengths] == [1, 0.5, 0.25, 0.25, 0.5, 1]
    words = [text.text for text in drawing.iter(f"{_SVG}text")]
    assert {"a < b", "1,200", "600", "0.50", "2.00", "100 ms"} <= {*words}


def test_draws_a_curve_through_every_distance_that_was_measured() -> None:
    """The farther, the more to the right; the less, the lower; one dot where only one distance was measured."""
    curves = [
        [tuple(map(float, point.split(","))) for point in curve.attrib["points"].split()]
        for curve in _drawn().iter(f"{_SVG}polyline")
    ]
    assert [len(points) for points in curves] == [4, 1, 1]
    ours = curves[0]
    assert sorted(ours) == ours and sorted(y for _, y in ours) == [y for _, y in ours]


def test_names_of_curves_that_end_together_stand_below_each_other() -> None:
    """Nobody could read them in one place."""
    figures = _figures()
    figures.add(GO_NOISE.name, {received(100): 19.9})
    drawing = ElementTree.fromstring(plot(figures, [PT.name, GO_NOISE.name]))
    heights = [
        float(text.attrib["y"])
        for text in drawing.iter(f"{_SVG}text")
        if text.text in (PT.name, GO_NOISE.name) and float(text.attrib["x"]) > 700
    ]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) >= 12


def test_everything_lies_within_the_frame() -> None:
    """No coordinate exceeds the view."""
    drawing = _drawn()
    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    for element in drawing.iter():
        assert 0 <= float(element.attrib.get("x", 0)) + float(element.attrib.get("width", 0)) <= width * 1.001
        assert 0 <= float(element.attrib.get("y", element.attrib.get("cy", 0))) <= height


def test_without_figures_there_is_an_empty_frame() -> None:
    """A run that measured other things breaks nothing."""
    assert plot(Figures(), [PT.name]).endswith("</svg>\n")
