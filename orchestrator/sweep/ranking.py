"""What a trial is worth, and the trials in order, with what can and what cannot be said about their order."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.evaluation.compare import Basis, compare, paired, scores
from orchestrator.evaluation.learnt import BETTER_THAN
from orchestrator.evaluation.metric import is_lower_better
from orchestrator.evaluation.rows import Row, read_rows
from orchestrator.lib import layout
from orchestrator.lib.errors import Diverged, InputError, StageError
from orchestrator.lib.files import read_json
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run
from orchestrator.spec.sections import Evaluate, Spec

EVAL_LOSS = "eval_loss"
Json = dict[str, Any]
Figure = dict[str, float | None]
"""`{value, low, high}`: a 95 % interval over the held-out rows; none for a loss, whose rows are not known."""


def require_metric(spec: Spec, metric: str) -> None:
    """Raise InputError unless the evaluation of this spec measures the metric."""
    from orchestrator.evaluation.calls import Call
    from orchestrator.evaluation.measure import measure
    from orchestrator.evaluation.own import OwnMetric

    known = [EVAL_LOSS, *spec.kind.metrics]
    if spec.kind.answers:
        called = (Call("a", {}),)
        rows = [Row("1", "", "a", "a"), Row("2", "", "a", "a", called, called)]
        known += measure(rows, spec.evaluate.task).metrics
        known += [OwnMetric.of(text).function for text in spec.evaluate.metrics]
    if metric not in known:
        raise InputError(f"sweep.metric: nothing measures {metric!r} here", f"Choose one of: {', '.join(known)}.")


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


def tie_breakers(run: Run) -> Json:
    """What decides between equal trials, and whether this one learnt anything: its loss (on held-out rows, or else on
    training rows), the seconds it was trained for, and whether its evaluation shows it to beat what needs no training.
    """
    file = run.folder / layout.TRAINED / "all_results.json"
    results = read_json(file) if file.is_file() else {}
    failures = {failure["what"] for failure in summaries(run.folder).get("failures", ())}
    return {
        "loss": results.get(EVAL_LOSS, results.get("train_loss")),
        "cost": run.record["stages"].get("train", {}).get("seconds"),
        "learnt": BETTER_THAN not in failures,
    }


def unusable(run: Run, evaluate: Evaluate) -> str | None:
    """Why nobody should be given the tuned model of a run, from its answers; None for a sound one, and without any."""
    from orchestrator.evaluation.measure import useless

    file = run.folder / layout.predictions("tuned")
    return useless(read_rows(file), evaluate.task, evaluate.labels) if file.is_file() else None


@dataclass(frozen=True, slots=True)
class Group:
    """The completed repetitions of one point, best first."""

    parameters: Mapping[str, Any]
    trials: Sequence[Json]

    @property
    def value(self) -> float:
        """The mean of the repetitions."""
        return statistics.fmean(trial["value"]["value"] for trial in self.trials)

    @property
    def learnt(self) -> bool:
        """Whether one of them is shown to beat what needs no training, or nobody asked."""
        return any(trial.get("learnt", True) for trial in self.trials)

    def mean(self, key: str) -> float:
        """The mean of what is known of the repetitions, such as `loss` or `cost`; infinite where nothing is."""
        known = [trial[key] for trial in self.trials if trial.get(key) is not None]
        return statistics.fmean(known) if known else math.inf

    def figure(self) -> Figure:
        """The means of the values and of their intervals: repetitions answer the same rows, so more of them say
        nothing about other rows, and the interval does not shrink."""

        def mean(part: str) -> float | None:
            known = [trial["value"][part] for trial in self.trials if trial["value"][part] is not None]
            return statistics.fmean(known) if known else None

        return {part: mean(part) for part in ("value", "low", "high")}

    def spread(self) -> float | None:
        """The standard deviation between the repetitions; None for a single one."""
        values = [trial["value"]["value"] for trial in self.trials]
        return statistics.stdev(values) if len(values) > 1 else None


def rank(trials: Iterable[Json], metric: str) -> list[Group]:
    """The points with completed trials, best first; of equal ones that with the lower loss, then the cheaper to train,
    then the earlier. What diverged, or answers nothing, is not ranked."""
    sign = 1 if is_lower_better(metric) else -1
    by_point: dict[str, dict[str, Json]] = {}
    for trial in trials:
        if trial["status"] == "completed":  # random may draw a point twice, which is one run all the same
            by_point.setdefault(json.dumps(trial["parameters"]), {}).setdefault(trial["run"], trial)
    groups = [
        Group(
            next(iter(runs.values()))["parameters"],
            sorted(runs.values(), key=lambda trial: sign * trial["value"]["value"]),
        )
        for runs in by_point.values()
    ]
    return sorted(groups, key=lambda group: (sign * group.value, group.mean("loss"), group.mean("cost")))


def ranking(groups: Sequence[Group], runs_dir: Path, metric: str, evaluate: Evaluate) -> list[Json]:
    """The ranking as plain JSON; `tied` says that a point cannot be told from the best (None where nobody can say)."""
    if not groups:
        return []
    best = None if metric == EVAL_LOSS else _Answers(groups[0], runs_dir)
    ranked = []
    for place, group in enumerate(groups, 1):
        verdict = _Verdict(None, "") if best is None else best.against(_Answers(group, runs_dir), evaluate)
        ranked.append(
            {
                "rank": place,
                "parameters": group.parameters,
                "trials": [trial["number"] for trial in group.trials],
                "best_trial": group.trials[0]["number"],
                "value": group.figure(),
                "spread": group.spread(),
                "learnt": group.learnt,
                "tied": True if place == 1 else verdict.tied,
                "sentence": "" if place == 1 else verdict.sentence,
            }
        )
    return ranked


@dataclass(frozen=True, slots=True)
class _Verdict:
    tied: bool | None
    sentence: str


class _Answers:
    """What the runs of a group answered."""

    def __init__(self, group: Group, runs_dir: Path) -> None:
        self._name = f"trial {group.trials[0]['number']}"
        self._runs = [read_rows(runs_dir / trial["run"] / layout.predictions("tuned")) for trial in group.trials]

    def against(self, other: _Answers, evaluate: Evaluate) -> _Verdict:
        """Whether the other can be told from this, by accuracy or ROUGE-L, row by row."""
        names = (other._name, self._name)
        if not all(_same_rows(self._runs[0], rows) for rows in (*self._runs, *other._runs)):
            return _Verdict(None, f"{names[0]} and {names[1]} were measured on different rows")
        if len(self._runs) == len(other._runs) == 1:
            found = compare(other._runs[0], self._runs[0], Basis(evaluate.task, names, evaluate.labels))
            return _Verdict(found.verdict == "cannot tell", found.sentence)
        return _repeated(other._runs, self._runs, evaluate, names)


def _same_rows(a: Sequence[Row], b: Sequence[Row]) -> bool:
    return {(row.id, row.truth) for row in a} == {(row.id, row.truth) for row in b}


def _repeated(a: Sequence[list[Row]], b: Sequence[list[Row]], evaluate: Evaluate, names: tuple[str, str]) -> _Verdict:
    """Repetitions are averaged row by row first: rows are what was sampled, so rows are what is resampled."""
    from orchestrator.evaluation.intervals import percentile, resampled_sums

    delta = _row_means(a, b[0], evaluate) - _row_means(b, b[0], evaluate)
    draws = resampled_sums(delta[:, None])[:, 0] / len(delta)
    interval = percentile(float(delta.mean()), draws, len(delta), (-100, 100))
    tied = interval.low <= 0 <= interval.high
    words = "no significant difference between {} and {}" if tied else "{} differs from {}"
    shown = f"{interval.value:+.1f}, 95 % {interval.low:+.1f}…{interval.high:+.1f}, n = {len(delta)}"
    return _Verdict(tied, f"{words.format(*names)} over {len(a)} and {len(b)} seeds ({shown})")


def _row_means(runs: Sequence[list[Row]], order: list[Row], evaluate: Evaluate) -> Any:
    """The score of each row, 0 to 100, averaged over runs."""
    import numpy as np

    aligned = ([row for _, row in paired(order, rows)] for rows in runs)
    return np.mean([scores(rows, evaluate.task, evaluate.labels) for rows in aligned], axis=0)
