"""How many answers call the right tools: the figures of calls, and of one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.evaluation.calls import argument_f1, same, same_names
from orchestrator.evaluation.intervals import Figures, Interval, bootstrap
from orchestrator.evaluation.rows import Row


def call_metrics(rows: Sequence[Row], seed: int = 0) -> dict[str, Interval]:
    """Of the rows that expect a call: those with the right calls, the right names, the mean F1 of arguments, and those
    without any call; of the rows that expect text: those with a call. In percent; what no row can tell is left out."""
    found: dict[str, Interval] = {}
    for names in (tuple(_CALLED), tuple(_TALKED)):
        table = np.array([[row_score(row, name) for name in names] for row in rows if is_about(names[0], row)])
        if len(table):
            found |= bootstrap(table, _means(names, len(table)), seed)
    return found


def row_score(row: Row, metric: str) -> float:
    """One of these metrics for one row that it is about, 0 to 1."""
    return (_CALLED | _TALKED)[metric](row)


def is_about(metric: str, row: Row) -> bool:
    """Whether one of these metrics is about a row: the one about spurious calls is about those that expect none."""
    return bool(row.expected) == (metric in _CALLED)


_CALLED: dict[str, Callable[[Row], float]] = {
    "call_accuracy": lambda row: float(same(row.calls or (), row.expected or ())),
    "name_accuracy": lambda row: float(same_names(row.calls or (), row.expected or ())),
    "argument_f1": lambda row: argument_f1(row.calls or (), row.expected or ()),
    "missed_calls": lambda row: float(not row.calls),
}
_TALKED: dict[str, Callable[[Row], float]] = {"spurious_calls": lambda row: float(bool(row.calls))}
CALL_METRICS = (*_CALLED, *_TALKED)
SHARES = ("call_accuracy", "name_accuracy", "missed_calls", "spurious_calls")
"""Those that are yes or no for each row."""


def _means(names: tuple[str, ...], n: int) -> Figures:
    return lambda sums: dict(zip(names, 100 * sums.T / n, strict=True))
