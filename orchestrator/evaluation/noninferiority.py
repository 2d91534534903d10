"""How much an artifact may lose against another on the same rows, at most, and so whether it is shown to be as good.

"No difference seen" is absence of evidence. What is asked here instead is whether the data rule a larger loss out than
is allowed: the bound is right at least 19 times in 20, so one that is within the limit is proof at the 5 % level.

The bound is that of Learned-Miller & Thomas, A New Confidence Interval for the Mean of a Bounded Random Variable
(2019): the rows' differences, and one row more that loses everything, are weighted by a Bayesian bootstrap (Rubin,
1981), and the 5 % quantile of the weighted means is taken. Where rows are only right or wrong and none is won it is the
exact bound of Clopper & Pearson (1934). It needs no normal approximation; those go wrong where few rows differ, and so
does Newcombe's interval for paired proportions (method 10, 1998): scripts/simulate_recommendation.py compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.evaluation.intervals import Array

LEVEL = 0.05
"""How often a bound may be wrong."""
DRAWS = 200_000
NUMBERS = 4_000_000
"""Random numbers for one bound; where many rows differ, there are fewer draws of more of them."""
MOST_ROWS = 1_000_000
"""More rows than this nobody will hold out."""
WORST = -100.0


@dataclass(frozen=True, slots=True)
class Loss:
    """What an artifact loses against the reference, in points; negative where it gains."""

    seen: float
    at_most: float
    """In 19 of 20 cases."""
    limit: float
    rows: int
    rows_needed: int | None
    """To show that the limit is kept, if the loss that was seen is the true one; None where none would do."""

    @property
    def shown(self) -> bool:
        """Whether the data show that it loses no more than is allowed."""
        return self.at_most <= self.limit


def loss(differences: Array, limit: float, seed: int = 0, needs: bool = True) -> Loss:
    """The loss by the rows' differences, artifact less reference, in points from −100 to 100; so is the limit.

    Without `needs`, how many rows would do is left open, which takes most of the time.
    """
    values, counts = np.unique(differences, return_counts=True)
    seen, n = -float(differences.mean()), len(differences)
    at_most = -_bound(values, counts.astype(np.float64), seed)
    needed = _rows_needed(values, counts / n, limit, n, seed) if needs and at_most > limit else n
    return Loss(seen, at_most, limit, n, needed)


def _bound(values: Array, counts: Array, seed: int) -> float:
    """The mean difference that is not undercut, in 19 of 20 cases."""
    shapes, worths = np.append(counts, 1.0), np.append(values, WORST)
    draws = max(1000, min(DRAWS, NUMBERS // len(shapes)))
    weights = np.random.default_rng(seed).standard_gamma(shapes, (draws, len(shapes)))
    return float(np.quantile(weights @ worths / weights.sum(axis=1), LEVEL))


def _rows_needed(values: Array, shares: Array, limit: float, n: int, seed: int) -> int | None:
    """The fewest rows that would show it, the differences' shares staying as they were seen; to about 1 %."""

    def enough(rows: int) -> bool:
        return -_bound(values, shares * rows, seed) <= limit

    high = n
    while not enough(high):
        if (high := 2 * high) > MOST_ROWS:
            return None
    low = max(n, high // 2)
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
