"""Every held-out row with what each artifact answered, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.evaluation.rows import strip_thinking
from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines
from orchestrator.report.overview import is_plain

Json = dict[str, Any]

ROWS_SHOWN = 1000
"""Rows of one page; the files hold all of them."""


def answers_by_row(folder: Path, summary: Json) -> list[Json]:
    """Row by row {id, prompt, label, answers, kinds}: artifact → answer, and the words the row can be filtered by.

    The order is that of the held-out rows. An artifact whose file is gone, or is no plain file, is left out.
    """
    given = {artifact: found for artifact in summary["metrics"] if (found := _answers(folder, artifact))}
    labels = {name: set(detail.get("labels") or ()) for name, detail in summary.get("detail", {}).items()}
    rows: dict[str, Json] = {}
    for artifact, answers in given.items():
        for row in answers:
            entry = rows.setdefault(str(row.get("id")), {"id": str(row.get("id")), "answers": {}})
            entry |= {"prompt": str(row.get("prompt", "")), "label": str(row.get("label", "")).strip()}
            entry["answers"][artifact] = str(row.get("prediction", ""))
    return [{**row, "kinds": list(kinds(row, labels))} for row in rows.values()]


def kinds(row: Json, labels: dict[str, set[str]]) -> Iterator[str]:
    """What a row can be looked for by: whose answer differs from what was expected, and from whose."""
    answers = {artifact: strip_thinking(text) for artifact, text in row["answers"].items()}
    for artifact, answer in answers.items():
        if labels.get(artifact) and answer != strip_thinking(row["label"]):
            yield f"{artifact} is wrong"
    tuned = answers.get("tuned")
    for artifact, answer in answers.items():
        if tuned is not None and artifact != "tuned" and answer != tuned:
            yield f"{artifact} and tuned differ"


def all_kinds(rows: Sequence[Json]) -> list[str]:
    """The kinds that some row has, in the order in which they are met."""
    return list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))


def _answers(folder: Path, artifact: str) -> list[Json]:
    file = folder / layout.predictions(artifact)
    if "/" in artifact or not is_plain(file):
        return []
    return [row for row in read_json_lines(file, growing=True) if isinstance(row, dict)]
