"""Does a model answer at all, and does what it answers depend on what it is asked?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.evaluation.measure import Task
from orchestrator.evaluation.overlap import extract_label, overlap_metrics
from orchestrator.evaluation.rows import Row, has_thinking, shown

_QUOTED = 60  # characters of an answer


def useless(rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None) -> str | None:
    """Why nobody should be given a model that answers so, in words; None for one that answers.

    It answers nothing, or the same to every row it answers while the expected answers differ. In a classification two
    answers are the same where they name the same label. Rows that all expect the same show nothing of the kind.
    """
    given = [row for row in rows if row.answer]
    if not given:
        return f"all {len(rows)} answers are empty{_cut_off(rows)}"
    expected = {row.truth for row in rows}
    known = tuple(dict.fromkeys([*(labels or ()), *sorted(expected)])) if task == "classification" else ()
    said = {extract_label(row.answer, known) or row.answer for row in given}
    if len(said) > 1 or len(expected) == 1:
        return None
    rest = f" and nothing to the other {len(rows) - len(given)}" if len(given) < len(rows) else ""
    every = f"all {len(rows)}" if len(given) == len(rows) else f"{len(given)} of {len(rows)}"
    return f"it answers {_quoted(said.pop())} to {every} rows{rest}, which expect {len(expected)} different answers"


def untold(rows: Sequence[Row]) -> str | None:
    """What held-out rows cannot tell, in words; None where they differ in what they expect."""
    expected = {row.truth for row in rows}
    if len(rows) < 2 or len(expected) > 1:
        return None
    return (
        f"all {len(rows)} held-out rows expect {_quoted(expected.pop())}: "
        "a model that always says so would look perfect, so hold out rows of other labels too"
    )


def with_thoughts(rows: Sequence[Row], seed: int = 0) -> str | None:
    """How answers with thoughts were measured: stripped of them in every figure, and what it is with them shown."""
    thinking = [row for row in rows if has_thinking(row.prediction)]
    if not thinking:
        return None
    whole = [replace(row, label=shown(row.label), prediction=shown(row.prediction)) for row in rows]
    alone, together = (overlap_metrics(of, seed)["rougeL"] for of in (rows, whole))
    return (
        f"{len(thinking)} of {len(rows)} answers have a thought, which every figure leaves out; "
        f"ROUGE-L is {alone.value:.1f} ({alone.low:.1f}–{alone.high:.1f}) without thoughts, "
        f"{together.value:.1f} ({together.low:.1f}–{together.high:.1f}) of thought and answer together"
    )


def _cut_off(rows: Sequence[Row]) -> str:
    thought = sum(has_thinking(row.prediction) for row in rows)
    return f"; thoughts without an answer after them: {thought}" if thought else ""


def _quoted(answer: str) -> str:
    return repr(answer if len(answer) <= _QUOTED else f"{answer[:_QUOTED]}…")
