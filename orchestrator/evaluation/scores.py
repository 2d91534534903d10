"""What answers come to: every figure, comparison, loss, failure and note of score and judge. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.evaluation.baselines import Baseline, against, majority_rows, not_better, seen_in, untellable
from orchestrator.evaluation.call_metrics import CALL_METRICS, is_about
from orchestrator.evaluation.calls import CallReader
from orchestrator.evaluation.compare import Basis, Comparison, agreement, compare, paired_scores
from orchestrator.evaluation.gate import (
    Failure,
    judge,
    judge_answers,
    judge_divergence,
    judge_own,
    judge_parity,
    with_causes,
)
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.learnt import BASELINES
from orchestrator.evaluation.measure import Measurement, Task, measure, untold, useless, with_thoughts
from orchestrator.evaluation.noninferiority import Loss, loss
from orchestrator.evaluation.parity import uncompared, uncompared_sentence
from orchestrator.evaluation.rows import Row

Json = dict[str, Any]
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """By what answers are measured, and what is demanded of them."""

    task: Task
    labels: Sequence[str] | None = None
    template: str | None = None
    """Whose calls the answers hold, of a task about tools."""
    seed: int = 0
    reference: str = "tuned"
    baseline: str = "base"
    gate: Mapping[str, float] = field(default_factory=dict)
    better_than: Sequence[str] = BASELINES
    """What the reference must beat."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Metrics of the user's own, registered by now: name → head of a column."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run has to be measured; each map is artifact → what is known of it."""

    rows: Mapping[str, list[Row]]
    parity: Mapping[str, Json] = field(default_factory=dict)
    """Whether it was asked the tokens of training."""
    divergence: Mapping[str, list[Json]] = field(default_factory=dict)
    """How far it is, row by row, from the one that it is held against."""
    held_against: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of its file, in bytes."""
    taught: Sequence[str] | None = ()
    """The last answer of each training row; None where what they teach is a preference."""
    has_tools: bool = False
    """Whether the model is served with tools."""


@dataclass(frozen=True)
class Scores:
    """What was found; comparisons are artifact → against the reference, and the reference's against the baseline."""

    measurements: Mapping[str, Measurement]
    agreements: Mapping[str, Interval | None]
    """None where neither the artifact nor the reference answers anything."""
    comparisons: Mapping[str, Comparison]
    by_call: list[Comparison]
    """The same by other metrics than the one that verdicts are about."""
    losses: Mapping[str, Loss]
    """Artifact → what it may lose against the reference, where the gate limits that."""
    learnt: Json
    """What is known of the training's effect: comparisons with what needs no training, and what advice goes by."""
    notes: list[str]
    """What the figures cannot tell."""
    failures: list[Failure] = field(default_factory=list)


def score(it: Evidence, by: Terms) -> Scores:
    """Every figure, comparison and failure; what is neither reference nor baseline is held against the reference."""
    rows, pairs, baselines = it.rows, _pairs(it, by), _baselines(it, by)
    facts = {one.name: one.comparison.to_json() for one in baselines if one.name != "base"}
    seen = {} if it.taught is None else seen_in(rows[by.reference], it.taught, by.task)
    found = Scores(
        measurements={name: measure(of, by.task, by.labels, by.seed) for name, of in rows.items()},
        comparisons={a: compare(rows[a], rows[b], Basis(by.task, (a, b), by.labels, seed=by.seed)) for a, b in pairs},
        agreements={a: agreement(rows[a], rows[b], by.seed) for a, b in pairs if b == by.reference},
        by_call=_by_call(pairs, it, by),
        losses=_losses(pairs, it, by),
        learnt=facts | seen,
        notes=[*_notes(it, by), *untellable(baselines)],
    )
    return replace(found, failures=_failures(found, baselines, it, by))


def _pairs(it: Evidence, by: Terms) -> Pairs:
    """Each artifact and what it is held against."""
    others = [(name, by.reference) for name in it.rows if name not in (by.reference, by.baseline)]
    return [*([(by.reference, by.baseline)] if by.baseline in it.rows else []), *others]


def _by_call(pairs: Pairs, it: Evidence, by: Terms) -> list[Comparison]:
    """Comparisons by the other metrics of calls, as far as rows tell them."""
    if by.task != "tools":
        return []
    told = [name for name in CALL_METRICS[1:] if any(is_about(name, row) for row in it.rows[by.reference])]
    return [
        compare(it.rows[a], it.rows[b], Basis(by.task, (a, b), metric=name, seed=by.seed))
        for a, b in pairs
        for name in told
    ]


def _losses(pairs: Pairs, it: Evidence, by: Terms) -> dict[str, Loss]:
    if "max_accuracy_drop" not in by.gate:
        return {}
    found = {}
    for a, b in pairs:
        if b == by.reference:
            _, before, after = paired_scores(it.rows[a], it.rows[b], Basis(by.task, (a, b), by.labels))
            found[a] = loss(after - before, 100 * by.gate["max_accuracy_drop"], by.seed)
    return found


def _baselines(it: Evidence, by: Terms) -> list[Baseline]:
    """The reference against what needs no training. A preference is learnt beside the answers, which need not get any
    better: nothing is asked of them."""
    tuned, found = it.rows[by.reference], []
    if it.taught is None:
        return []
    if "base" in by.better_than and by.baseline in it.rows:
        found.append(against(tuned, it.rows[by.baseline], "base", "base", by.task, by.labels))
    if "majority" in by.better_than and by.task == "classification":
        label, same = majority_rows(tuned, it.taught)
        found.append(against(tuned, same, "majority", f"always answering {label!r}", by.task, by.labels))
    return found


def _failures(found: Scores, baselines: Sequence[Baseline], it: Evidence, by: Terms) -> list[Failure]:
    """What the gate has to say; that a training taught nothing is said only where nothing else is wrong with it."""
    asked = {name: of for name, of in it.rows.items() if name != by.baseline}
    failures = judge_answers({name: useless(of, by.task, by.labels) for name, of in asked.items()})
    for name, report in it.parity.items():
        agrees = found.agreements[name]
        failures += judge_parity(name, report, agrees.value if agrees else 0.0, by.gate)
    failures += judge(found.measurements, found.agreements, by.gate, by.reference)
    failures += judge_divergence(it.divergence, by.gate.get("max_divergence"))
    failures += judge_own(found.measurements, list(found.agreements), list(by.own), by.gate, by.reference)
    sound = by.reference not in {failure.artifact for failure in failures}
    return with_causes([*(not_better(baselines) if sound else []), *failures], it.parity)


def _notes(it: Evidence, by: Terms) -> Iterator[str]:
    yield from (uncompared_sentence(name, report) for name, report in it.parity.items() if uncompared(report))
    if unclear := untold(it.rows[by.reference]):
        yield unclear
    yield from (f"{name}: {told}" for name, of in it.rows.items() if (told := with_thoughts(of, by.seed)))
    if by.task == "tools":
        yield from _notes_on_calls(it, by)
    elif it.has_tools:
        yield "the rows have tools, and calls are compared as texts; evaluate.task: tools compares them as calls"


def _notes_on_calls(it: Evidence, by: Terms) -> Iterator[str]:
    """What was no call although it began as one, and rows that ask for none."""
    if not any(row.expected for row in it.rows[by.reference]):
        yield "no held-out row expects a call: hold out rows that do, or say evaluate.task: generation"
    reader = CallReader(by.template) if by.template else None
    for artifact, of in it.rows.items():
        if broken := sum(bool(reader and reader.is_broken(row.answer)) for row in of):
            why = "cut off by max_new_tokens, or no JSON"
            yield f"{artifact}: {broken} of {len(of)} answers begin a call that is none: {why}"
