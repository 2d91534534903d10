"""Labels right and wrong: the figures of scikit-learn, computed from column sums so that they can be resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import Array, Interval, bootstrap
from orchestrator.evaluation.overlap import extract_label
from orchestrator.evaluation.rows import Row


@dataclass(frozen=True)
class Confusion:
    """Which label each row has, and which its answer names."""

    labels: tuple[str, ...]
    truth: tuple[str, ...]
    named: tuple[str | None, ...]

    @property
    def correct(self) -> Array:
        """1 for a right row, 0 for a wrong one."""
        return np.array([t == a for t, a in zip(self.truth, self.named, strict=True)], dtype=np.float64)


def confusion(rows: Sequence[Row], labels: Sequence[str] | None = None) -> Confusion:
    """Reads the answers against the known labels; those that occur in the rows are always known."""
    occurring = sorted({row.truth for row in rows})
    known = tuple(dict.fromkeys([*(label.strip() for label in labels or ()), *occurring]))
    return Confusion(known, tuple(row.truth for row in rows), tuple(extract_label(row.answer, known) for row in rows))


def classification_metrics(table: Confusion, seed: int = 0) -> dict[str, Interval]:
    """Accuracy, balanced accuracy, macro figures, invalid-label rate and the majority-class baseline."""
    k = len(table.labels)
    majority = table.labels.index(_majority(table))

    def figures(sums: Array) -> Mapping[str, Array]:
        support, named, right, invalid = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k], sums[:, -1]
        n = support.sum(axis=1)
        recall = _divide(right, support)
        occurs = support + named > 0
        return {
            "accuracy": 100 * right.sum(axis=1) / n,
            "balanced_accuracy": 100 * _mean(recall, support > 0),
            "macro_f1": 100 * _mean(_divide(2 * right, support + named), occurs),
            "macro_precision": 100 * _mean(_divide(right, named), occurs),
            "macro_recall": 100 * _mean(recall, occurs),
            "invalid_label_rate": 100 * invalid / n,
            "majority_baseline": 100 * support[:, majority] / n,
        }

    return bootstrap(_statistics(table), figures, seed)


def classification_detail(table: Confusion) -> dict[str, Any]:
    """The confusion matrix (rows: truth; columns: the labels, then invalid) and each class's figures."""
    columns = [*table.labels, None]
    counts = Counter(zip(table.truth, table.named, strict=True))
    return {
        "labels": list(table.labels),
        "confusion_matrix": [[counts[truth, named] for named in columns] for truth in table.labels],
        "per_class": {label: _one_class(table, label) for label in table.labels},
        "majority_label": _majority(table),
    }


def _one_class(table: Confusion, label: str) -> dict[str, float]:
    support, named = table.truth.count(label), table.named.count(label)
    right = sum(t == a == label for t, a in zip(table.truth, table.named, strict=True))
    return {
        "precision": 100 * right / named if named else 0.0,
        "recall": 100 * right / support if support else 0.0,
        "f1": 200 * right / (support + named) if support + named else 0.0,
        "support": support,
    }


def _majority(table: Confusion) -> str:
    return max(table.labels, key=table.truth.count)


def _statistics(table: Confusion) -> Array:
    """Rows × (3 k + 1): one-hot truth, one-hot named label, one-hot right label, invalid."""
    columns = np.array(table.labels)
    truth = np.array(table.truth)[:, None] == columns
    named = np.array([name or "" for name in table.named])[:, None] == columns
    return np.hstack([truth, named, truth & named, ~named.any(axis=1, keepdims=True)]).astype(np.float64)


def _divide(numerator: Array, denominator: Array) -> Array:
    """Zero where there is nothing to divide by, as scikit-learn's zero_division=0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _mean(values: Array, counted: np.typing.NDArray[np.bool_]) -> Array:
    """The mean over the classes that a resample contains; a class that it lacks is not a class it gets wrong."""
    return np.asarray((values * counted).sum(axis=1) / counted.sum(axis=1))
