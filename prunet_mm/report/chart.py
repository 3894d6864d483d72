"""Line charts as inline SVG that fit any width: text stays text, strokes keep their width.

The SVG has the unit of the data and is stretched to the place there is (``vector-effect`` keeps
strokes as they are); labels and marks are HTML on top, placed in percent. So one chart is readable
on a phone, on a wide screen and on paper, and the script that shows values under the pointer reads
them from the lines themselves. A chart takes some kB, where Plotly's or Bokeh's script alone takes
more than a whole report may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from prunet_mm.search.figures import line_look

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line through points; what is under the pointer is told by its name.

    Attributes:
        band: Lower and upper border of an area around it, at the same places.
        dots: Draw the points alone.
    """

    name: str
    points: Points
    color: str
    dash: str = ''
    width: float = 1.5
    band: tuple[Points, Points] | None = None
    dots: bool = False

    @classmethod
    def of_candidate(cls, name: str, points: Points, band=None) -> Line:
        """Return the line of a candidate such as 'irb_k3', in the colour that it has everywhere."""
        look = line_look(name)
        return cls(name, points, look['color'], dash_of(look['linestyle']), band=band)


@dataclass(frozen=True)
class Mark:
    """A sign at a place; ``y`` of None is the upper edge.

    Attributes:
        text: What is told where the pointer rests on it.
    """

    x: float
    y: float | None
    sign: str
    text: str
    color: str = '#222222'


@dataclass(frozen=True)
class Chart:
    """Lines and marks over common axes.

    Attributes:
        uprights: Places of dotted upright lines, with a label each.
        y_range: Of the axis; by default what the lines need.
        gone_from: Place from which on there is nothing any more.
        note: A line below the title.
    """

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str
    marks: Sequence[Mark] = ()
    uprights: Sequence[tuple[float, str]] = ()
    y_range: tuple[float, float] | None = None
    x_range: tuple[float, float] | None = None
    gone_from: float | None = None
    note: str = ''

    @property
    def xs(self) -> tuple[float, float]:
        """Range of the horizontal axis."""
        if self.x_range:
            return self.x_range
        return padded([x for line in self.lines for x, _ in line.points], 0.02)

    @property
    def ys(self) -> tuple[float, float]:
        """Range of the vertical axis."""
        if self.y_range:
            return self.y_range
        values = [y for line in self.lines for _, y in line.points]
        return padded(values + [mark.y for mark in self.marks if mark.y is not None], 0.1)

    @property
    def view_box(self) -> str:
        """Of the SVG, whose inner group is flipped so that values rise upwards."""
        (left, right), (low, high) = self.xs, self.ys
        return f'{short(left)} {short(-high)} {short(right - left)} {short(high - low)}'

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places in percent from the left, and labels."""
        return self._ticks(*self.xs, 5)

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places in percent from below, and labels."""
        return self._ticks(*self.ys, 4)

    def left(self, x: float) -> float:
        """Return a place in percent from the left."""
        left, right = self.xs
        return round(100 * (x - left) / (right - left), 3)

    def bottom(self, y: float | None) -> float:
        """Return a place in percent from below."""
        low, high = self.ys
        return 96.0 if y is None else round(100 * (y - low) / (high - low), 3)

    @staticmethod
    def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
        return [
            (round(100 * (value - low) / (high - low), 3), f'{value:g}')
            for value in ticks(low, high, count)
        ]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round values from low to high."""
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.95)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the range of some values with a margin, never an empty one."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = share * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def polyline(points: Points) -> str:
    """Return points as an SVG attribute, without those inside of level stretches."""
    kept = [
        point
        for index, point in enumerate(points)
        if not 0 < index < len(points) - 1
        or not points[index - 1][1] == point[1] == points[index + 1][1]
    ]
    return ' '.join(f'{short(x)},{short(y)}' for x, y in kept)


def area(band: tuple[Points, Points]) -> str:
    """Return the outline of a band as an SVG attribute."""
    low, high = band
    corners = [steps(low), steps(high)[::-1]]
    return ' '.join(f'{short(x)},{short(y)}' for side in corners for x, y in side)


def steps(points: Points) -> list[tuple[float, float]]:
    """Return points of which only the changes are left, with right angles between them."""
    kept = list(points[:1])
    for before, here in pairwise(points):
        if here[1] != before[1]:
            kept += [(here[0], before[1]), here]
    return [*kept, *points[-1:]]


def short(value: float) -> str:
    """Return a number in as few characters as a picture needs."""
    return f'{value:.6g}'


def dash_of(style) -> str:
    """Return matplotlib's line style as an SVG attribute."""
    if isinstance(style, tuple):
        return ' '.join(f'{2 * length:g}' for length in style[1])
    return {'-': '', '-.': '6 3 1 3', '--': '5 4', ':': '1 3'}[style]
