"""The tuned model against what needs no training, row by row, and what the answers themselves tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.evaluation.compare import Basis, Comparison, compare, scores
from orchestrator.evaluation.gate import Failure
from orchestrator.evaluation.learnt import BETTER_THAN
from orchestrator.evaluation.measure import Task
from orchestrator.evaluation.rows import Row, has_thinking

LEAST_WRONG = 6
"""So many rows a baseline must get wrong before a better model can be told from it: McNemar's exact test, and the
bootstrap's floor in compare.py, need 2 / 2^k < 0.05."""


def majority_rows(rows: Sequence[Row], taught: Sequence[str]) -> tuple[str, list[Row]]:
    """The most frequent training label, and the rows as if every answer were that one.

    Without training labels it is the most frequent one of the rows themselves, which is harder to beat.
    """
    counts = Counter(label.strip() for label in taught) or Counter(row.truth for row in rows)
    label = max(sorted(counts), key=counts.__getitem__)
    return label, [replace(row, prediction=label) for row in rows]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The tuned model against one baseline."""

    name: str
    words: str
    """The baseline as a sentence calls it."""
    comparison: Comparison
    tellable: bool
    """Whether a better model could be told from it with these rows."""


def against(
    tuned: Sequence[Row], rows: Sequence[Row], name: str, words: str, task: Task, labels: Sequence[str] | None = None
) -> Baseline:
    """The tuned model against a baseline's answers to the same rows."""
    wrong = int((scores(rows, task, labels) < 100).sum())
    found = compare(tuned, rows, Basis(task, ("tuned", words), labels))
    return Baseline(name, words, found, wrong >= LEAST_WRONG)


def not_better(baselines: Sequence[Baseline]) -> list[Failure]:
    """A failure of the tuned model for each baseline that it is not shown to beat, though the rows could show it."""
    return [
        Failure("tuned", BETTER_THAN, f"tuned is not better than {one.words}; {one.comparison.sentence}")
        for one in baselines
        if one.tellable and one.comparison.verdict != "better"
    ]


def untellable(baselines: Sequence[Baseline]) -> list[str]:
    """What too few rows, or too good a baseline, leave open, in words."""
    return [
        f"{one.comparison.n} rows cannot show that tuned is better than {one.words}, which has "
        f"{one.comparison.metric} {one.comparison.value_b:.1f} on them"
        for one in baselines
        if not one.tellable and one.comparison.verdict != "better"
    ]


def seen_in(rows: Sequence[Row], taught: Sequence[str], task: Task) -> dict[str, Any]:
    """What the answers themselves tell: labels that training never had, and how many answers end too early."""
    known = {label.strip() for label in taught}
    unseen = sorted({row.truth for row in rows} - known) if known and task == "classification" else []
    return {"unseen_labels": unseen, "cut_off": sum(map(_ends_early, rows))}


def _ends_early(row: Row) -> bool:
    """Whether an answer stops within its label, or within its thoughts."""
    within = row.answer != row.truth and row.truth.startswith(row.answer)
    return within if row.answer else has_thinking(row.prediction)
