"""A figure and how far it can be trusted: 95 % percentile bootstrap over the rows.

Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. A metric is a function of column sums over
per-row statistics, so a resample costs one product of matrices and no text is read twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Figures = Callable[[Array], Mapping[str, Array]]
"""Sums of the statistics, one resample a row → each metric's value, one for each resample."""

RESAMPLES = 1000
_ALPHA = 0.05
_DRAWS_AT_ONCE = 4_000_000  # bounds memory: 32 MB of counts


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; low ≤ value ≤ high, on a scale of 0 to 100 unless said otherwise."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """`{value, low, high}`."""
        return asdict(self)


def bootstrap(
    statistics: Array, figures: Figures, seed: int = 0, unbounded: Container[str] = ()
) -> dict[str, Interval]:
    """Each figure with its interval; `statistics` is rows × columns, at least one row.

    Figures named in `unbounded` may exceed 100.
    """
    whole = figures(statistics.sum(axis=0, keepdims=True))
    draws = figures(resampled_sums(statistics, seed))
    return {
        name: percentile(float(value[0]), draws[name], len(statistics), (0, math.inf if name in unbounded else 100))
        for name, value in whole.items()
    }


def resampled_sums(statistics: Array, seed: int = 0) -> Array:
    """Column sums of RESAMPLES resamples, drawn with replacement; RESAMPLES × columns."""
    return np.concatenate([counts @ statistics for counts in draw_counts(len(statistics), seed)])


def draw_counts(n: int, seed: int) -> Iterator[Array]:
    """How often each row is drawn, resamples × rows, in blocks that fit into memory."""
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def percentile(value: float, draws: Array, n: int, bounds: tuple[float, float] = (0, 100)) -> Interval:
    """The middle 95 % of the draws; a biased draw never pushes the value out of its own interval.

    Where every draw is the same (100 of 100 rows right) the bootstrap has nothing to go by and would claim certainty.
    Then a share of 1 − 0.025^(1/n) of unseen rows may lie anywhere within the bounds: for a proportion, the exact
    interval of Clopper & Pearson, Biometrika 26 (1934).
    """
    low, high = np.quantile(draws, [_ALPHA / 2, 1 - _ALPHA / 2])
    if high - low < 1e-9 and math.isfinite(bounds[1]):
        unseen = 1 - (_ALPHA / 2) ** (1 / n)
        low, high = value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)
    return Interval(value, min(float(low), value), max(float(high), value))
