"""Rows → every metric of a task, each with its interval; the wrong answers, worst first; and whether there are answers
at all, which depend on what is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from orchestrator.evaluation.call_metrics import call_metrics
from orchestrator.evaluation.calls import argument_f1, same
from orchestrator.evaluation.classification import classification_detail, classification_metrics, confusion
from orchestrator.evaluation.intervals import Interval, bootstrap
from orchestrator.evaluation.metric import samples
from orchestrator.evaluation.overlap import extract_label, overlap_metrics, rouge
from orchestrator.evaluation.rows import Row, has_thinking, read_rows, shown
from orchestrator.lib.errors import InputError

Task = Literal["classification", "generation", "tools"]

_MOST_LABELS = 50
_LONGEST_LABEL = 40  # characters
_QUOTED = 60  # characters of an answer


@dataclass(frozen=True)
class Measurement:
    """What n rows say about one artifact; `metrics` are on a scale of 0 to 100, `detail` is plain JSON."""

    n: int
    metrics: dict[str, Interval]
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """`{n, metrics: {name: {value, low, high}}, detail}`."""
        return asdict(self)


def measure(rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None, seed: int = 0) -> Measurement:
    """The figures of the task; the others also have those of generation, for their answers are texts too.

    Raises InputError without rows or for an unknown task.
    """
    check_task(task)
    if not rows:
        raise InputError("there are no rows to score", "Give at least one row with a label and a prediction.")
    detail: dict[str, Any] = {
        "task": task,
        "thinking_stripped": sum(has_thinking(row.prediction) for row in rows),
        "empty_answers": sum(not row.answer for row in rows),
    }
    metrics = {"empty_rate": empty_rate(rows, seed)}
    if task == "classification":
        table = confusion(rows, labels)
        metrics |= classification_metrics(table, seed)
        detail |= classification_detail(table)
    if task == "tools":
        metrics |= call_metrics(rows, seed)
    return Measurement(len(rows), metrics | overlap_metrics(rows, seed) | sampled(rows, task, seed), detail)


def sampled(rows: Sequence[Row], task: Task, seed: int = 0) -> dict[str, Interval]:
    """The metrics of the table that are means over rows, in percent."""
    chosen = samples(task)
    if not chosen:
        return {}
    table = np.array([[score(row) for score in chosen.values()] for row in rows], dtype=np.float64)
    return bootstrap(table, lambda sums: dict(zip(chosen, 100 * sums.T / len(rows), strict=True)), seed)


def empty_rate(rows: Sequence[Row], seed: int = 0) -> Interval:
    """The share of rows without an answer, in percent."""
    empty = np.array([[not row.answer] for row in rows], dtype=np.float64)
    return bootstrap(empty, lambda sums: {"empty_rate": 100 * sums[:, 0] / len(empty)}, seed)["empty_rate"]


def evaluate_file(path: Path, task: str | None = None, labels: Sequence[str] | None = None) -> Measurement:
    """The figures of a predictions file; `detail.task_reason` says how a task that was not given was chosen.

    Raises InputError for a bad file, naming file and line, and for an unknown task.
    """
    rows = read_rows(path)
    chosen, reason = (check_task(task), "given") if task else guess_task(rows)
    measurement = measure(rows, chosen, labels)
    measurement.detail["task_reason"] = reason
    return measurement


def guess_task(rows: Sequence[Row]) -> tuple[Task, str]:
    """Tools where some row expects a call, classification where the labels are few, short and repeat, else generation;
    and the reason in words."""
    if called := sum(bool(row.expected) for row in rows):
        return "tools", f"{called} of {len(rows)} rows expect a call"
    labels = {row.truth for row in rows}
    seen = f"{len(labels)} distinct labels in {len(rows)} rows, the longest of {max(map(len, labels))} characters"
    short = all(len(label) <= _LONGEST_LABEL and "\n" not in label for label in labels)
    if short and len(labels) <= _MOST_LABELS and len(labels) < len(rows):
        return "classification", seen
    return "generation", seen


def check_task(task: str) -> Task:
    """The task of that name; raises InputError for one that does not exist."""
    if task not in get_args(Task):
        raise InputError(f"unknown task {task!r}", f"Choose one of: {', '.join(get_args(Task))}.")
    return cast(Task, task)


def mistakes(rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Every wrong row as plain JSON with the reason.

    Classification: answers that name no label, then the most frequent confusions. Tools: other calls than expected,
    then as generation, whose lowest ROUGE-L comes first.
    """
    if task == "classification":
        return _wrong_labels(rows, labels)
    if task == "tools":
        return [*_wrong_calls(rows), *_low_overlap([row for row in rows if not (row.calls or row.expected)])]
    return _low_overlap(rows)


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


def _wrong_calls(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Fewest right arguments first."""
    called = [row for row in rows if row.calls or row.expected]
    wrong = [row for row in called if not same(row.calls or (), row.expected or ())]
    scored = [(argument_f1(row.calls or (), row.expected or ()), row) for row in wrong]
    return [_entry(row, argument_f1=score) for score, row in sorted(scored, key=lambda pair: pair[0])]


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


def _cut_off(rows: Sequence[Row]) -> str:
    thought = sum(has_thinking(row.prediction) for row in rows)
    return f"; thoughts without an answer after them: {thought}" if thought else ""


def _quoted(answer: str) -> str:
    return repr(answer if len(answer) <= _QUOTED else f"{answer[:_QUOTED]}…")
