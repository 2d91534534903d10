"""What a trial is worth: a figure of the tuned model on the held-out rows."""

from __future__ import annotations

import math

from orchestrator import layout
from orchestrator.errors import Diverged, InputError, StageError
from orchestrator.evaluation.preference import MEASURES
from orchestrator.files import read_json
from orchestrator.records import Run
from orchestrator.runs import is_lower_better
from orchestrator.spec.defaults import DEFAULTS
from orchestrator.spec.sections import Evaluate, Spec

EVAL_LOSS = "eval_loss"
Figure = dict[str, float | None]
"""`{value, low, high}`: a 95 % interval over the held-out rows; none for a loss, whose rows are not known."""


def require_metric(spec: Spec, metric: str) -> None:
    """Raise InputError unless the evaluation of this spec measures the metric."""
    from orchestrator.evaluation.measure import measure
    from orchestrator.evaluation.rows import Row

    stage = {**DEFAULTS, **spec.train}["stage"]
    known = [EVAL_LOSS, *MEASURES.get(stage, ())]
    if stage not in ("rm", "pt"):
        known += measure([Row("1", "", "a", "a")], spec.evaluate.task).metrics
    if metric not in known:
        raise InputError(f"sweep.metric: nothing measures {metric!r} here", f"Choose one of: {', '.join(known)}.")


def minimises(metric: str) -> bool:
    """Whether less of it is better."""
    return is_lower_better(metric)


def figure(run: Run, metric: str) -> Figure:
    """The metric of a finished run. Raises StageError when it was not measured, Diverged when it is no number."""
    if metric == EVAL_LOSS:
        value = read_json(run.folder / layout.TRAINED / "all_results.json").get(EVAL_LOSS)
        found: Figure | None = None if value is None else {"value": value, "low": None, "high": None}
    else:
        found = run.record["metrics"].get("tuned", {}).get(metric)
    if found is None:
        raise StageError(f"{run.id} was not measured by {metric}", "Choose another sweep.metric.")
    if found["value"] is None or not math.isfinite(found["value"]):
        raise Diverged(f"training diverged: {metric} is {found['value']}", "Lower train.learning_rate.")
    return found


def unusable(run: Run, evaluate: Evaluate) -> str | None:
    """Why nobody should be given the tuned model of a run, from its answers; None for a sound one, and without any."""
    from orchestrator.evaluation.answers import useless
    from orchestrator.evaluation.rows import read_rows

    file = run.folder / layout.predictions("tuned")
    return useless(read_rows(file), evaluate.task, evaluate.labels) if file.is_file() else None
