"""The wrong answers, worst first: what to read before changing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.evaluation.classification import confusion
from orchestrator.evaluation.measure import Task
from orchestrator.evaluation.overlap import rouge
from orchestrator.evaluation.rows import Row


def mistakes(rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Every wrong row as plain JSON with the reason.

    Classification: answers that name no label, then the most frequent confusions. Generation: lowest ROUGE-L first.
    """
    return _wrong_labels(rows, labels) if task == "classification" else _low_overlap(rows)


def _wrong_labels(rows: Sequence[Row], labels: Sequence[str] | None) -> list[dict[str, Any]]:
    table = confusion(rows, labels)
    wrong = [(row, named) for row, named in zip(rows, table.named, strict=True) if named != row.truth]
    counts = Counter((row.truth, named) for row, named in wrong)
    wrong.sort(key=lambda pair: (pair[1] is not None, -counts[pair[0].truth, pair[1]], pair[0].truth, pair[1] or ""))
    return [_entry(row, named=named, same_mistake=counts[row.truth, named]) for row, named in wrong]


def _low_overlap(rows: Sequence[Row]) -> list[dict[str, Any]]:
    scored = [(rouge(row.truth, row.answer)[2], row) for row in rows if row.answer != row.truth]
    return [_entry(row, rougeL=score) for score, row in sorted(scored, key=lambda pair: pair[0])]


def _entry(row: Row, **reason: Any) -> dict[str, Any]:
    return {"id": row.id, "prompt": row.prompt, "label": row.truth, "prediction": row.prediction, **reason}
