"""What a trial is worth: a figure of the tuned model on the held-out rows."""

from __future__ import annotations

from orchestrator import layout
from orchestrator.errors import InputError, StageError
from orchestrator.evaluation.preference import MEASURES
from orchestrator.files import read_json
from orchestrator.records import Run
from orchestrator.runs import is_lower_better
from orchestrator.spec.defaults import DEFAULTS
from orchestrator.spec.sections import Spec

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
    """The metric of a finished run. Raises StageError when it was not measured."""
    if metric == EVAL_LOSS:
        value = read_json(run.folder / layout.TRAINED / "all_results.json").get(EVAL_LOSS)
        found: Figure | None = None if value is None else {"value": value, "low": None, "high": None}
    else:
        found = run.record["metrics"].get("tuned", {}).get(metric)
    if found is None:
        raise StageError(f"{run.id} was not measured by {metric}", "Choose another sweep.metric.")
    return found
