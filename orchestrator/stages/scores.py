"""What answers come to: figures, comparisons, failures and notes of score and judge, and the summary that says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.stages.recommendation import compared, diverged, losses, recommended

if TYPE_CHECKING:
    from orchestrator.evaluation.compare import Comparison
    from orchestrator.evaluation.gate import Failure
    from orchestrator.evaluation.intervals import Interval
    from orchestrator.evaluation.measure import Measurement
    from orchestrator.evaluation.noninferiority import Loss
    from orchestrator.evaluation.rows import Row
    from orchestrator.stages.score import Score


@dataclass(frozen=True)
class Scores:
    """What was measured; comparisons are artifact → against the reference, and the reference's against the baseline."""

    measurements: Mapping[str, Measurement]
    agreements: Mapping[str, Interval | None]
    """None where neither the artifact nor the reference answers anything."""
    comparisons: Mapping[str, Comparison]
    failures: list[Failure]
    notes: list[str] = field(default_factory=list)
    """What the figures cannot tell."""
    more: list[Comparison] = field(default_factory=list)
    """By other metrics than the one that verdicts are about."""
    learnt: dict[str, Any] = field(default_factory=dict)
    """What is known of the training's effect: comparisons with what needs no training, and what advice goes by."""
    losses: Mapping[str, Loss] = field(default_factory=dict)
    """Artifact → what it may lose against the reference, where the gate limits that."""
    divergences: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Artifact → each row's divergence."""


def score(rows: Mapping[str, list[Row]], config: Score) -> Scores:
    """Every figure, comparison and failure; what is neither reference nor baseline is held against the reference."""
    from orchestrator.evaluation.answers import untold, useless, with_thoughts
    from orchestrator.evaluation.compare import Basis, agreement, compare
    from orchestrator.evaluation.gate import judge, judge_answers, judge_divergence, judge_parity, with_causes
    from orchestrator.evaluation.measure import measure
    from orchestrator.evaluation.own import judge_own, titles
    from orchestrator.evaluation.parity import uncompared, uncompared_sentence

    reference, labels, seed = config.reference, config.labels, config.seed
    measurements = {name: measure(of, config.task, labels, seed) for name, of in rows.items()}
    against = {reference: config.baseline} if config.baseline in rows else {}
    against |= {name: reference for name in rows if name not in (reference, config.baseline)}
    comparisons = {
        a: compare(rows[a], rows[b], Basis(config.task, (a, b), labels, seed=seed)) for a, b in against.items()
    }
    agreements = {name: agreement(rows[name], rows[b], seed) for name, b in against.items() if b == reference}
    reports = {name: read_json(Path(file)) for name, file in (config.parity or {}).items()}
    failures = judge_answers(
        {name: useless(of, config.task, labels) for name, of in rows.items() if name != config.baseline}
    )
    for name, report in reports.items():
        agrees = agreements[name]
        failures += judge_parity(name, report, agrees.value if agrees else 0.0, config.gate or {})
    failures += judge(measurements, agreements, config.gate or {}, reference)
    divergences = {name: read_json_lines(Path(file)) for name, file in (config.divergence or {}).items()}
    failures += judge_divergence(divergences, (config.gate or {}).get("max_divergence"))
    own = list(titles(config.metrics or ()))
    failures += judge_own(measurements, list(agreements), own, config.gate or {}, reference)
    notes = [uncompared_sentence(name, report) for name, report in reports.items() if uncompared(report)]
    if unclear := untold(rows[reference]):
        notes.append(unclear)
    notes += [f"{name}: {told}" for name, of in rows.items() if (told := with_thoughts(of, seed))]
    notes += _notes_on_calls(rows, config)
    missed, open_, learnt = _learnt(rows, config)
    failures = [*missed, *failures] if reference not in {failure.artifact for failure in failures} else failures
    more, failures = _by_call(rows, against, config), with_causes(failures, reports)
    found = Scores(measurements, agreements, comparisons, failures, [*notes, *open_], more, learnt)
    return replace(found, losses=losses(rows, agreements, config), divergences=divergences)


def _learnt(rows: Mapping[str, list[Row]], config: Score) -> tuple[list[Failure], list[str], dict[str, Any]]:
    """What the tuned model is not shown to beat, what these rows cannot show, and what is recorded of both.

    A preference is learnt beside the answers, which need not get any better: nothing is asked of them.
    """
    from orchestrator.evaluation import learnt

    answers = taught()
    if answers is None or config.reference not in rows:
        return [], [], {}
    tuned, wanted = rows[config.reference], learnt.BASELINES if config.better_than is None else config.better_than
    found = []
    if "base" in wanted and config.baseline in rows:
        found.append(learnt.against(tuned, rows[config.baseline], "base", "base", config.task, config.labels))
    if "majority" in wanted and config.task == "classification":
        label, same = learnt.majority_rows(tuned, answers)
        found.append(learnt.against(tuned, same, "majority", f"always answering {label!r}", config.task, config.labels))
    facts = {one.name: one.comparison.to_json() for one in found if one.name != "base"}
    facts |= learnt.seen_in(tuned, answers, config.task)
    return learnt.not_better(found), learnt.untellable(found), facts


def taught() -> list[str] | None:
    """The last answer of each training row; none without such rows, None where what they teach is a preference."""
    file = Path(layout.TRAIN_ROWS)
    rows = read_json(file) if file.is_file() else []
    if any("chosen" in row or "kto_tag" in row for row in rows):
        return None
    return [row["conversations"][-1]["value"] for row in rows]


def summarise(scores: Scores, config: Score) -> dict[str, Any]:
    """The summary as plain JSON; `predict_rouge` is there only where LLaMA-Factory's own figures were named."""
    from orchestrator.evaluation.own import titles

    sizes = {name: Path(file).stat().st_size for name, file in (config.files or {}).items()}
    recommendation = recommended(scores, sizes, config.reference)
    summary = {
        "metrics": {name: _figures(name, scores, config.reference) for name in scores.measurements},
        "detail": {name: measurement.detail for name, measurement in scores.measurements.items()},
        "comparisons": [
            *(compared(comparison, scores.losses.get(a)) for a, comparison in scores.comparisons.items()),
            *(_told_by_metric(comparison) for comparison in scores.more),
        ],
        "failures": [asdict(failure) for failure in scores.failures],
        "recommendation": asdict(recommendation) if recommendation else None,
        "sizes": sizes,
        "notes": scores.notes,
        "learnt": scores.learnt,
        **({"own": titles(config.metrics)} if config.metrics else {}),
    }
    if scores.divergences:
        summary["divergence"] = diverged(scores.divergences, config.held_against or {})
    named = {name: source["rouge"] for name, source in config.artifacts.items() if not isinstance(source, str)}
    own = {name: _own_rouge(file) for name, file in named.items()}
    return summary | ({"predict_rouge": own} if own else {})


def _by_call(rows: Mapping[str, list[Row]], against: Mapping[str, str], config: Score) -> list[Comparison]:
    """The same comparisons by the other metrics of calls, as far as rows tell them."""
    from orchestrator.evaluation.calls import CALL_METRICS, is_about
    from orchestrator.evaluation.compare import Basis, compare

    asked = rows[config.reference]
    told = [name for name in CALL_METRICS[1:] if config.task == "tools" and any(is_about(name, row) for row in asked)]
    return [
        compare(rows[a], rows[b], Basis(config.task, (a, b), metric=name, seed=config.seed))
        for a, b in against.items()
        for name in told
    ]


def _told_by_metric(comparison: Comparison) -> dict[str, Any]:
    from orchestrator.evaluation.metric import METRICS

    told = comparison.to_json()
    return {**told, "sentence": f"{METRICS[comparison.metric].title}: {told['sentence']}"}


def _notes_on_calls(rows: Mapping[str, list[Row]], config: Score) -> Iterator[str]:
    """What was no call although it began as one, and rows that ask for none."""
    from orchestrator.evaluation.calls import CallReader

    if config.task != "tools":
        if Path(layout.SERVING).is_file() and read_json(Path(layout.SERVING)).get("tools"):
            yield "the rows have tools, and calls are compared as texts; evaluate.task: tools compares them as calls"
        return
    if not any(row.expected for row in rows[config.reference]):
        yield "no held-out row expects a call: hold out rows that do, or say evaluate.task: generation"
    reader = CallReader(config.template) if config.template else None
    for artifact, of in rows.items():
        if broken := sum(bool(reader and reader.is_broken(row.answer)) for row in of):
            why = "cut off by max_new_tokens, or no JSON"
            yield f"{artifact}: {broken} of {len(of)} answers begin a call that is none: {why}"


def _figures(name: str, scores: Scores, reference: str) -> dict[str, Any]:
    from orchestrator.evaluation import divergence

    measurement = scores.measurements[name]
    figures = {metric: interval.to_json() for metric, interval in measurement.metrics.items()}
    if agrees := scores.agreements.get(name):
        figures[f"agreement_with_{reference}"] = agrees.to_json()
    figures |= {
        metric: found.to_json() for metric, found in divergence.figures(scores.divergences.get(name, ())).items()
    }
    return {"n": measurement.n, **figures}


def _own_rouge(file: str) -> dict[str, float]:
    """predict_rouge-* and predict_bleu-4 of LLaMA-Factory's predict_results.json."""
    results = read_json(Path(file))
    return {key: value for key, value in results.items() if key.startswith(("predict_rouge", "predict_bleu"))}
