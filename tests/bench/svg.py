"""A drawing in SVG: rectangles, lines and words, legible on a light page and on a dark one."""

from collections.abc import Sequence
from html import escape

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>
text {{ font: 12px sans-serif; fill: #57606a }}
.heading {{ font-size: 14px; font-weight: bold }}
.rule {{ stroke: #8c959f; stroke-opacity: .4 }}
.curve {{ fill: none; stroke-width: 2 }}
</style>
"""


class Drawing:
    """What is drawn so far; coordinates are pixels from the upper left corner.

    Args:
        width, height: pixels.
        title: is read to those who don't see the drawing.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [_HEAD.format(width=width, height=height, title=escape(title))]

    def text(self, x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> None:
        """Write words at a baseline that they start, end or have their middle at; "heading" is a kind."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>\n'
        )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>\n'
        )

    def rule(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Draw a thin line that leads the eye."""
        self._parts.append(
            f'<line class="rule" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>\n'
        )

    def curve(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """Join points, each with a dot."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="curve" points="{joined}" stroke="{colour}"/>\n')
        self._parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>\n' for x, y in points]

    def __str__(self) -> str:
        return "".join(self._parts) + "</svg>\n"
