"""Two artifacts on the same rows: better, worse, or cannot tell, and how many rows it would take to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from orchestrator.evaluation.call_metrics import CALL_METRICS, SHARES, is_about, row_score
from orchestrator.evaluation.classification import confusion
from orchestrator.evaluation.intervals import Array, Interval, bootstrap, percentile, resampled_sums
from orchestrator.evaluation.measure import Task, check_task
from orchestrator.evaluation.metric import METRICS, is_lower_better, primary_of, scored_by
from orchestrator.evaluation.overlap import rouge
from orchestrator.evaluation.rows import Row
from orchestrator.lib.errors import InputError

Verdict = Literal["better", "worse", "cannot tell"]
Pairs = list[tuple[Row, Row]]

_LEVEL = 0.05
_POWER = 0.8
_Z_LEVEL = NormalDist().inv_cdf(1 - _LEVEL / 2)
_Z_POWER = NormalDist().inv_cdf(_POWER)


@dataclass(frozen=True)
class Comparison:
    """`a` against `b` on n paired rows; `difference` is a − b in points of `metric`."""

    a: str
    b: str
    metric: str
    value_a: float
    value_b: float
    difference: Interval
    p_value: float
    verdict: Verdict
    n: int
    rows_needed: int | None
    """For a power of 80 % at the 5 % level, were the observed difference the true one; None for none at all."""

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        values = f"{self.value_a:.1f} against {self.value_b:.1f}"
        difference = self.difference
        interval = f"{difference.value:+.1f}, 95 % {difference.low:+.1f}…{difference.high:+.1f}"
        if self.verdict != "cannot tell":
            return f"{self.a} is {self.verdict} than {self.b}: {values} ({interval}, n = {self.n})"
        needed = f"about {rounded(self.rows_needed)} rows would be needed" if self.rows_needed else "no difference seen"
        return f"no significant difference between {self.a} and {self.b}: {values} ({interval}, n = {self.n}); {needed}"

    def to_json(self) -> dict[str, Any]:
        """Every field and the sentence, as plain JSON."""
        return asdict(self) | {"sentence": self.sentence}


@dataclass(frozen=True, slots=True)
class Basis:
    """What two artifacts are compared by."""

    task: Task
    names: tuple[str, str] = ("a", "b")
    labels: Sequence[str] | None = None
    """The labels there are; None lets the rows say it."""
    metric: str | None = None
    """None for the task's own."""
    seed: int = 0
    """Of the resampling."""


def compare(a: Sequence[Row], b: Sequence[Row], by: Basis) -> Comparison:
    """Accuracy by McNemar's exact test for classification, ROUGE-L by the paired bootstrap for generation; for tools
    the share of rows with the right calls, or another metric of calls, over the rows that it is about. Any other metric
    that is a mean over rows by the paired bootstrap.

    Raises InputError unless both hold the same ids with the same labels.
    """
    check_task(by.task)
    metric, before, after = paired_scores(a, b, by)
    delta = after - before
    value = float(delta.mean())
    draws = resampled_sums(delta[:, None], by.seed)[:, 0] / len(delta)
    p_value, needed = _mcnemar(delta) if metric in ("accuracy", *SHARES) else _paired_bootstrap(delta, draws)
    verdict = _verdict(p_value, -value if is_lower_better(metric) else value)
    if needed and verdict == "cannot tell":
        needed = max(needed, len(delta) + 1)
    interval = percentile(value, draws, len(delta), (-100, 100))
    means = float(after.mean()), float(before.mean())
    return Comparison(*by.names, metric, *means, interval, p_value, verdict, len(delta), needed)


def agreement(a: Sequence[Row], b: Sequence[Row], seed: int = 0) -> Interval | None:
    """The share of rows that both answer with the same text, in percent, among those that one of them answers.

    None where neither answers any: two silences are no agreement.
    """
    answered = [(left.answer, right.answer) for left, right in paired(a, b) if left.answer or right.answer]
    if not answered:
        return None
    same = np.array([[left == right] for left, right in answered], dtype=np.float64)
    return bootstrap(same, lambda sums: {"agreement": 100 * sums[:, 0] / len(same)}, seed)["agreement"]


def disagreements(a: Sequence[Row], b: Sequence[Row], names: tuple[str, str] = ("a", "b")) -> list[dict[str, str]]:
    """The rows that they answer differently, with both answers."""
    return [
        {"id": left.id, "prompt": left.prompt, "label": left.truth, names[0]: left.answer, names[1]: right.answer}
        for left, right in paired(a, b, names)
        if left.answer != right.answer
    ]


def paired(a: Sequence[Row], b: Sequence[Row], names: tuple[str, str] = ("a", "b")) -> Pairs:
    """The rows of `a` with their counterparts in `b`, by id."""
    left, right = ({row.id: row for row in rows} for rows in (a, b))
    for name, rows, by_id in ((names[0], a, left), (names[1], b, right)):
        if len(rows) != len(by_id):
            raise InputError(f"{name} answers an id more than once", "Every row needs an id of its own.")
    if lonely := sorted(left.keys() ^ right.keys()) or ([] if left else ["no rows at all"]):
        raise InputError(
            f"{names[0]} and {names[1]} cannot be paired: only one of them has {', '.join(lonely[:5])}",
            "Score both on the same rows.",
        )
    for id_, row in left.items():
        if row.truth != right[id_].truth:
            raise InputError(
                f"row {id_} has the label {row.truth!r} in {names[0]} and {right[id_].truth!r} in {names[1]}",
                "Score both on the same rows.",
            )
    return [(row, right[row.id]) for row in a]


def paired_scores(a: Sequence[Row], b: Sequence[Row], by: Basis) -> tuple[str, Array, Array]:
    """What they are compared by, and each row's score, 0 to 100, of `b` and of `a`.

    Raises InputError unless both hold the same ids with the same labels.
    """
    pairs = paired(a, b, by.names)
    metric = by.metric or _primary(a, by.task)
    if metric in CALL_METRICS:
        pairs = [pair for pair in pairs if is_about(metric, pair[0])]
    before, after = (_scored([pair[i] for pair in pairs], metric, by.labels) for i in (1, 0))
    return metric, before, after


def _mcnemar(delta: Array) -> tuple[float, int | None]:
    """The exact p-value of McNemar's test (a binomial test on the rows where only one is right), and pairs needed."""
    from scipy.stats import binomtest

    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return p_value, mcnemar_rows((wins + losses) / len(delta), (wins - losses) / len(delta))


def mcnemar_rows(discordant: float, difference: float) -> int | None:
    """Pairs needed, from the share of rows where only one is right and the difference of the two shares.

    Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987).
    """
    if difference == 0:
        return None
    spread = _Z_LEVEL * math.sqrt(discordant) + _Z_POWER * math.sqrt(discordant - difference**2)
    return math.ceil((spread / difference) ** 2)


def _paired_bootstrap(delta: Array, draws: Array) -> tuple[float, int | None]:
    """Twice the smaller share of resamples on either side of zero, and pairs needed.

    A handful of rows that all point one way would look certain to the bootstrap, while no test of k signs goes below
    2 / 2^k: hence the floor, and the 6 rows. The standard error shrinks with the root of n.
    """
    smaller = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p_value = max(2 * (smaller + 1) / (len(draws) + 1), 2.0 ** (1 - int((delta != 0).sum())))
    if abs(difference := float(delta.mean())) < 1e-9:
        return min(1.0, p_value), None
    errors = (_Z_LEVEL + _Z_POWER) * float(draws.std()) / difference
    return min(1.0, p_value), max(6, math.ceil(len(delta) * errors**2))


def scores(rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None) -> Array:
    """Each row's own score, 0 to 100: whether it is right, or its ROUGE-L; of tools, the rows that expect a call."""
    metric = _primary(rows, task)
    return _scored([row for row in rows if metric != "call_accuracy" or is_about(metric, row)], metric, labels)


def _primary(rows: Sequence[Row], task: Task) -> str:
    """What the rows are judged by: where none expects a call, that of texts."""
    return primary_of(task) if task != "tools" or any(row.expected for row in rows) else "rougeL"


def _scored(rows: Sequence[Row], metric: str, labels: Sequence[str] | None) -> Array:
    if metric == "accuracy":
        return 100 * confusion(rows, labels).correct
    if metric in CALL_METRICS:
        return np.array([100 * row_score(row, metric) for row in rows], dtype=np.float64)
    if metric == "rougeL":
        return np.array([rouge(row.truth, row.answer)[2] for row in rows])
    if score := scored_by(METRICS[metric]):
        return np.array([100 * score(row) for row in rows], dtype=np.float64)
    raise InputError(f"{metric} is no mean over rows: two artifacts cannot be compared by it", "Give it a `sample`.")


def _verdict(p_value: float, difference: float) -> Verdict:
    if p_value >= _LEVEL or difference == 0:
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def rounded(rows: int) -> int:
    """Two leading digits, rounded up: the formula promises no more."""
    unit = int(10 ** max(0, len(str(rows)) - 2))
    return -(-rows // unit) * unit
