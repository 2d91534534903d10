"""Every answer of every artifact, found by words, by who is wrong, or by a cell of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.evaluation.rows import Row
from orchestrator.report.answers import all_kinds, side_by_side
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run

Json = dict[str, Any]
PAGE = 100
"""Rows of one page."""
NONE = "no label"


def found(run: Run, asked: Mapping[str, str]) -> Json:
    """The values of the page. `q` are words, `kind` is who is wrong; `artifact`, `expected` and `named` are a cell."""
    summary: Json = {"metrics": {}, **summaries(run.folder)}
    rows = side_by_side(run.folder, summary)
    kinds = all_kinds(rows)
    rows = [row for row in rows if not asked.get("kind") or asked["kind"] in row["kinds"]]
    words = asked.get("q", "").lower().split()
    rows = [row for row in rows if all(word in _text(row) for word in words)]
    if asked.get("artifact"):
        rows = in_cell(rows, asked, summary)
    number = int(asked["page"]) if asked.get("page", "").isdecimal() else 1
    last = max(1, -(-len(rows) // PAGE))
    number = min(max(number, 1), last)
    shown = rows[PAGE * (number - 1) : PAGE * number]
    told = {"kinds": kinds, "artifacts": [name for name in summary["metrics"] if name != "majority"], "asked": asked}
    return {"rows": shown, "count": len(rows), "number": number, "last": last, **told}


def in_cell(rows: Sequence[Json], asked: Mapping[str, str], summary: Json) -> list[Json]:
    """The rows of one cell: what it is, and which label an artifact's answer names."""
    from orchestrator.evaluation.classification import confusion

    artifact = asked["artifact"]
    labels = summary.get("detail", {}).get(artifact, {}).get("labels")
    there = [row for row in rows if artifact in row["answers"]]
    asked_rows = [Row(row["id"], row["prompt"], row["label"], row["answers"][artifact]) for row in there]
    if not labels or not asked_rows:
        return []
    table = confusion(asked_rows, labels)
    cells = zip(there, table.truth, table.named, strict=True)
    wanted = (asked.get("expected"), asked.get("named"))
    return [row for row, truth, named in cells if (truth, named or NONE) == wanted]


def _text(row: Json) -> str:
    return "\n".join([row["prompt"], row["label"], *row["answers"].values()]).lower()
