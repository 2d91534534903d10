"""Charts as shapes in pixels, which report_charts.html.j2 writes as inline SVG: no library to load, sharp in print.

Every shape carries a class instead of a style, which the page's Content-Security-Policy would refuse. The page's
script reads values back from the pixels: hence the scales of a chart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Point = tuple[float, float]
Text = tuple[float, float, str, str]
"""Place, words, and the class of how they look."""

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 508, 20, 212
"""The frame of a plot."""
HIGHEST, LOWEST = 40, 222
"""The ends of parallel axes."""
DOT = 8
"""The diameter of a dot."""
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

    @property
    def path(self) -> str:
        """The points as SVG wants them."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


class Axis(NamedTuple):
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
        """Round values between low and high: steps of 1, 2 or 5; on a log axis powers of ten, or 1, 2, 5 of each."""
        if self.log and self.high >= 10 * self.low:
            powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            round_ones = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            long = self.high >= 100 * self.low
            return [v for v in round_ones[:: 3 if long else 1] if self.low <= v * (1 + 1e-9) and v <= self.high]
        step = _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    @property
    def data(self) -> str:
        """What the script needs to turn a pixel back into a value."""
        return f"{self.low:.6g} {self.high:.6g} {self.start:g} {self.end:g} {'log' if self.log else 'linear'}"


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: straight lines from (x, y) to (x, y), words, and series whose points are pixels."""

    title: str
    lines: Sequence[tuple[Point, Point]]
    texts: Sequence[Text]
    series: Sequence[Series]
    x: Scale | None = None
    y: Scale | None = None
    view: str = f"0 0 {WIDTH} {HEIGHT}"

    @property
    def legend(self) -> dict[str, str]:
        """Name → look of what a plot shows, unless it is a single thing or more than anybody can tell apart."""
        looks = {each.name: each.look for each in self.series}
        return looks if self.x and 2 <= len(looks) <= 8 else {}


def scale(values: Iterable[float], start: float, end: float, log: bool | None = None) -> Scale:
    """A scale that holds all values; log where they are positive and span much, unless `log` says."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    log = low > 0 and (high / low >= LOG_FROM if log is None else log)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    return Scale(low, high, start, end, log)


def plot(title: str, x_label: str, y_label: str, series: Sequence[Series], log_x: bool | None = False) -> Chart | None:
    """A chart of lines and dots; `log_x` None lets the values decide. None without a point."""
    points = [point for each in series for point in each.points]
    if not points:
        return None
    x = scale((point[0] for point in points), LEFT, RIGHT, log_x)
    y = scale((point[1] for point in points), BOTTOM, TOP, False)
    rows, columns = [(y(v), short(v)) for v in y.ticks()], [(x(v), short(v)) for v in x.ticks()]
    lines = [((LEFT, at), (RIGHT, at)) for at, _ in rows] + [((at, TOP), (at, BOTTOM)) for at, _ in columns]
    texts: list[Text] = [((LEFT + RIGHT) // 2, HEIGHT - 4, x_label, "label"), (2, 10, y_label, "label start")]
    texts += [(LEFT - 6, at + 4, words, "tick end") for at, words in rows]
    texts += [(at, BOTTOM + 15, words, "tick mid") for at, words in columns]
    drawn = [
        Series(each.name, [(x(a), y(b)) for a, b in each.points], each.look, each.dots or len(each.points) == 1)
        for each in series
        if each.points
    ]
    drawn = beside_each_other(drawn)
    return Chart(f"{title}: {y_label} against {x_label}", lines, texts, drawn, x, y)


def beside_each_other(series: Sequence[Series]) -> list[Series]:
    """The same series with dots that would lie on each other moved apart, to both sides in turn: none hides another."""
    taken: Counter[Point] = Counter()
    return [Series(each.name, [_free(point, taken) for point in each.points], each.look, True) if each.dots else each
            for each in series]  # fmt: skip


def _free(point: Point, taken: Counter[Point]) -> Point:
    place = (round(point[0] / DOT), round(point[1] / DOT))
    taken[place] += 1
    steps = taken[place] // 2 * (1 if taken[place] % 2 else -1)
    return (round(point[0] + steps * DOT, 1), point[1])


def parallel(axes: Sequence[Axis], names: Sequence[str], looks: Sequence[str]) -> Chart | None:
    """Parallel coordinates: a line for each name and look. None without two axes."""
    if len(axes) < 2 or not names:
        return None
    places = [round(LEFT + index * (WIDTH - 2 * LEFT) / (len(axes) - 1), 1) for index in range(len(axes))]
    columns: list[list[Point]] = []
    texts: list[Text] = []
    for place, axis in zip(places, axes, strict=True):
        pixels, (lower, upper) = _positions(axis)
        columns.append([(place, pixel) for pixel in pixels])
        texts += [(place, at, words, "label") for at, words in ((12, axis.title), (24, upper), (HEIGHT - 10, lower))]
    lines = [((place, HIGHEST - 2), (place, LOWEST + 2)) for place in places]
    paths = zip(names, zip(*columns, strict=True), looks, strict=True)
    title = f"parallel coordinates of {', '.join(axis.title for axis in axes)}"
    return Chart(title, lines, texts, [Series(name, path, look) for name, path, look in paths])


def numbered(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Values as numbers: themselves, and no words; or else each word's place, and the words in order of appearance."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return list(values), []
    words = list(dict.fromkeys(map(str, values)))
    return [words.index(str(value)) for value in values], words


def short(value: float) -> str:
    """A number as an axis shows it: 0.0005 is 5e-4."""
    if value and (abs(value) < 0.01 or abs(value) >= 1e5):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def _positions(axis: Axis) -> tuple[list[float], tuple[str, str]]:
    """The pixels of one axis's values, and the words at its lower and upper end."""
    numbers, words = numbered(axis.values)
    if words:
        along = scale([0, max(1, len(words) - 1)], LOWEST, HIGHEST, False)
        return list(map(along, numbers)), (words[0], words[-1])
    along = scale(numbers, LOWEST, HIGHEST, axis.log)
    return list(map(along, numbers)), (short(along.low), short(along.high))


def _step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
