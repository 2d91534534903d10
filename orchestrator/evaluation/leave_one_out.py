"""What a classifier says of each row without having seen it: ridge regression, left-one-out in closed form.

A regression on the labels' indicators answers for row i, fitted without it, y_i - (y_i - f_i) / (1 - h_i), f being the
fit to all rows and h the diagonal of its hat matrix: Allen, Technometrics 16 (1974), 125-127. So one decomposition does
for as many fits as there are rows, nothing is drawn at random, and what has to be chosen (how far to regularise, how
much to believe of which view) is what predicts the rows left out best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import Array

PENALTIES = 10.0 ** np.arange(-2.5, 1.75, 0.25)
"""To choose from, where the rows' squares are 1 on average."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Of the second view in the sum of squares, to choose from."""


def left_out(views: Sequence[Array], truth: NDArray[np.integer]) -> Array:
    """Rows × labels: how far each row looks like each label to a regression that has not seen it, about 0 to 1.

    `views` are one or two descriptions of the rows, rows × whatever; `truth` holds the labels' numbers from 0. Of two
    views that mixture is taken which has, at its best penalty, the least squared error over the rows left out.
    """
    wanted = np.eye(int(truth.max()) + 1)[truth]
    found = [one for mixture in _mixtures([_scaled(view) for view in views]) for one in _fits(mixture, wanted)]
    return min(found, key=lambda predicted: float(((predicted - wanted) ** 2).sum()))


def _scaled(view: Array) -> Array:
    """Its columns centred, its rows' squares 1 on average."""
    centred = view - view.mean(axis=0)
    size = np.sqrt((centred**2).sum() / len(centred))
    return np.asarray(centred / size if size > 0 else centred)


def _mixtures(views: Sequence[Array]) -> Iterator[Array]:
    first, *others = views
    if not others:
        yield first
        return
    for share in SHARES:
        yield np.hstack([np.sqrt(1 - share) * first, np.sqrt(share) * others[0]])


def _fits(rows: Array, wanted: Array) -> Iterator[Array]:
    """What is predicted of the rows left out, at each penalty; the intercept is not penalised."""
    left, squares = _directions(rows)
    mean = wanted.mean(axis=0)
    parts = left.T @ (wanted - mean)
    for penalty in PENALTIES:
        kept = squares / (squares + penalty)
        fit = mean + left @ (kept[:, None] * parts)
        own = left**2 @ kept + 1 / len(rows)
        yield wanted - (wanted - fit) / (1 - own)[:, None]


def _directions(rows: Array) -> tuple[Array, Array]:
    """The left singular vectors of rows and the squares of their values, from the smaller of the two Gram matrices.

    That is several times faster than a singular value decomposition; what it says less precisely is directions of
    next to no size, which the penalty removes.
    """
    if len(rows) <= rows.shape[1]:
        squares, left = np.linalg.eigh(rows @ rows.T)
        return left, np.maximum(squares, 0)
    squares, right = np.linalg.eigh(rows.T @ rows)
    sized = squares > squares[-1] * 1e-10
    return rows @ right[:, sized] / np.sqrt(squares[sized]), squares[sized]
