"""Charts as inline SVG: no library to load, sharp in print, and light or dark by the page's own style sheet.

Every shape carries a class instead of a style, which the page's Content-Security-Policy would refuse. The page's
script reads values back from the pixels: hence the data-x and data-y of a chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Point = tuple[float, float]

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 20, 38
MANY = 40
"""More series than this are drawn thin and see-through."""
LOG_FROM = 9.9
"""Positive values whose largest is so many times the smallest are drawn on a log axis, unless it is said otherwise."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points with a name; `look` is the class of its shapes."""

    name: str
    points: Sequence[Point]
    look: str = "s0"
    dots: bool = False
    """Points that no line joins."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One of several parallel axes, with a value for each line; words are spread in order of appearance."""

    title: str
    values: Sequence[Any]
    log: bool | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / ((high - low) or 1) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values between low and high: powers of ten where a log axis spans two, else steps of 1, 2 or 5."""
        if self.log and math.floor(math.log10(self.high)) - math.ceil(math.log10(self.low)) >= 1:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    @property
    def data(self) -> str:
        """What the script needs to turn a pixel back into a value."""
        return f"{self.low:.6g} {self.high:.6g} {self.start:g} {self.end:g} {'log' if self.log else 'linear'}"


def scale(values: Iterable[float], start: float, end: float, log: bool | None = None) -> Scale:
    """A scale that holds all values; log where they are positive and span much, unless `log` says."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    log = low > 0 and (high / low >= LOG_FROM if log is None else log)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    return Scale(low, high, start, end, log)


def plot(title: str, x_label: str, y_label: str, series: Sequence[Series], log_x: bool | None = False) -> Markup:
    """A chart of lines and dots; `log_x` None lets the values decide. Empty without a point."""
    drawn = [each for each in series if each.points]
    if not drawn:
        return Markup("")
    points = [point for each in drawn for point in each.points]
    x = scale((point[0] for point in points), LEFT, WIDTH - RIGHT, log_x)
    y = scale((point[1] for point in points), HEIGHT - BOTTOM, TOP, False)
    shapes = Markup("").join(_shape(each, x, y) for each in drawn)
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" tabindex="0" aria-label="{}" {}>').format(
        _class(drawn),
        WIDTH,
        HEIGHT,
        f"{title}: {y_label} against {x_label}",
        Markup('data-x="{}" data-y="{}"').format(x.data, y.data),
    )
    labels = Markup(
        '<text class="label" x="{}" y="{}">{}</text><text class="label start" x="2" y="10">{}</text>'
    ).format((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 4, x_label, y_label)
    return head + _grid(x, y) + labels + shapes + Markup("</svg>") + _legend(drawn)


def parallel(axes: Sequence[Axis], names: Sequence[str], looks: Sequence[str]) -> Markup:
    """Parallel coordinates: a line for each name and look. Empty without two axes."""
    if len(axes) < 2 or not names:
        return Markup("")
    places = [LEFT + index * (WIDTH - 2 * LEFT) / (len(axes) - 1) for index in range(len(axes))]
    columns, marks = [], Markup("")
    for place, axis in zip(places, axes, strict=True):
        pixels, ends = _positions(axis)
        columns.append([(round(place, 1), pixel) for pixel in pixels])
        marks += Markup('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(place, TOP + 18, HEIGHT - 26)
        marks += Markup('<text class="label" x="{}" y="12">{}</text>').format(place, axis.title)
        marks += Markup(
            '<text class="label" x="{0}" y="24">{1}</text><text class="label" x="{0}" y="{2}">{3}</text>'
        ).format(place, ends[1], HEIGHT - 10, ends[0])
    lines = Markup("").join(
        _line(path, look, name) for path, look, name in zip(zip(*columns, strict=True), looks, names, strict=True)
    )
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" tabindex="0" aria-label="{}">').format(
        _class(names), WIDTH, HEIGHT, f"parallel coordinates of {', '.join(axis.title for axis in axes)}"
    )
    return head + marks + lines + Markup("</svg>")


def short(value: float) -> str:
    """A number as an axis shows it: 0.0005 is 5e-4."""
    if value and (abs(value) < 0.01 or abs(value) >= 1e5):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def _class(drawn: Sequence[Any]) -> str:
    return "chart many" if len(drawn) > MANY else "chart"


def _positions(axis: Axis) -> tuple[list[float], tuple[str, str]]:
    """The pixels of one axis's values, and the words at its lower and upper end."""
    start, end = HEIGHT - 28, TOP + 20
    numbers = [value for value in axis.values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(axis.values):
        along = scale(numbers, start, end, axis.log)
        return [along(number) for number in numbers], (short(along.low), short(along.high))
    words = list(dict.fromkeys(str(value) for value in axis.values))
    along = scale([0, max(1, len(words) - 1)], start, end, False)
    return [along(words.index(str(value))) for value in axis.values], (words[0], words[-1])


def _shape(series: Series, x: Scale, y: Scale) -> Markup:
    points = [(x(a), y(b)) for a, b in series.points]
    if not series.dots and len(points) > 1:
        return _line(points, series.look, series.name)
    dot = Markup('<circle class="{}" cx="{}" cy="{}" r="4" data-name="{}"/>')
    return Markup("").join(dot.format(series.look, a, b, series.name) for a, b in points)


def _line(points: Iterable[Point], look: str, name: str) -> Markup:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return Markup('<polyline class="{}" points="{}" data-name="{}"/>').format(look, path, name)


def _grid(x: Scale, y: Scale) -> Markup:
    across = Markup(
        '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text class="tick end" x="{3}" y="{4}">{5}</text>'
    )
    up = Markup(
        '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text class="tick mid" x="{0}" y="{3}">{4}</text>'
    )
    rows = [across.format(LEFT, WIDTH - RIGHT, y(v), LEFT - 6, y(v) + 4, short(v)) for v in y.ticks()]
    columns = [up.format(x(v), TOP, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 15, short(v)) for v in x.ticks()]
    return Markup("").join(rows + columns)


def _legend(series: Sequence[Series]) -> Markup:
    if not 2 <= len({each.name for each in series}) <= 8:
        return Markup("")
    keys = {each.name: each.look for each in series}
    return Markup('<p class="legend">{}</p>').format(
        Markup("").join(
            Markup('<span class="{}">{}</span>').format(f"key {look}", escape(name)) for name, look in keys.items()
        )
    )


def _step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
