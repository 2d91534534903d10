"""Which checkpoint of a training answers validation rows best. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluation.compare import Basis, compare
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.measure import Task, measure
from orchestrator.evaluation.metric import METRICS, is_lower_better, primary
from orchestrator.evaluation.rows import Row


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint and its answers."""

    folder: str
    step: int
    epoch: float
    rows: Sequence[Row]
    metric: str
    figure: Interval

    @property
    def name(self) -> str:
        """The checkpoint as a sentence calls it."""
        return f"epoch {self.epoch:g}"


def measured(
    folder: str, step: int, epoch: float, rows: Sequence[Row], task: Task, labels: Sequence[str] | None = None
) -> Checkpoint:
    """A checkpoint with what its task is measured by."""
    figures = measure(rows, task, labels).metrics
    metric = primary(figures)
    return Checkpoint(folder, step, round(epoch, 2), rows, metric, figures[metric])


def best(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The best one of checkpoints in order; of equals the earliest, which has learnt the least by heart."""
    sign = -1 if is_lower_better(checkpoints[0].metric) else 1
    return max(checkpoints, key=lambda one: sign * one.figure.value)


def summarise(checkpoints: Sequence[Checkpoint], task: Task, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """The curve, what was chosen, and what is said of that."""
    in_order = sorted(checkpoints, key=lambda one: one.step)
    chosen, last = best(in_order), in_order[-1]
    return {
        "metric": chosen.metric,
        "rows": len(chosen.rows),
        "curve": [
            {"checkpoint": one.folder, "step": one.step, "epoch": one.epoch, **one.figure.to_json()} for one in in_order
        ],
        "kept": chosen.folder,
        "epoch": chosen.epoch,
        "sentence": sentence(chosen, last, len(in_order), task, labels),
    }


def sentence(chosen: Checkpoint, last: Checkpoint, of: int, task: Task, labels: Sequence[str] | None = None) -> str:
    """Which checkpoint goes on and how it compares with the last."""
    figure, title = chosen.figure, METRICS[chosen.metric].title
    reached = f"{title} {figure.value:.1f} ({figure.low:.1f}–{figure.high:.1f}) on {len(chosen.rows)} validation rows"
    if of == 1:
        return f"kept {chosen.name}, the only checkpoint that there is: {reached}"
    if chosen.folder == last.folder:
        return f"kept {chosen.name}, the last and the best of {of} checkpoints: {reached}"
    against = compare(chosen.rows, last.rows, Basis(task, ("kept", "last"), labels))
    told = "" if against.verdict == "better" else ", which so few rows cannot tell apart"
    return f"kept {chosen.name}, the best of {of} checkpoints: {reached}; {last.name} has {last.figure.value:.1f}{told}"
