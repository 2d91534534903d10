"""score, judge: answers become metrics with intervals, and the gate's verdict.

What the gate has to say is written down, not raised: the figures must be readable either way, and it is for whoever
reads the summary to stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.files import read_json, read_json_lines, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.ask import kinds_asked
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import source_type
from orchestrator.stages.diverge import reference_of
from orchestrator.stages.recommendation import compared, diverged, losses, recommended

if TYPE_CHECKING:
    from orchestrator.evaluation.compare import Comparison
    from orchestrator.evaluation.gate import Failure
    from orchestrator.evaluation.intervals import Interval
    from orchestrator.evaluation.metrics import Measurement, Task
    from orchestrator.evaluation.noninferiority import Loss
    from orchestrator.evaluation.rows import Row

BESIDE = ("errors", "disagreements")
"""Rows of an artifact that are written beside its answers."""
Source = str | Mapping[str, str]
"""A predictions file, or {generated, rows, rouge}: LLaMA-Factory's output, the rows it was given, its own figures."""


@dataclass(frozen=True, kw_only=True)
class Score(Stage):
    """Metrics of what LLaMA-Factory answered; each map is artifact → value, each path relative to the run's folder."""

    program = "score"
    phase = "evaluate"
    optional = ("gate", "files", "parity", "better_than", "metrics", "template", "divergence", "held_against")
    task: Task
    labels: list[str] | None = None
    template: str | None = None
    """Whose calls the answers hold, of a task about tools."""
    seed: int = 0
    artifacts: Mapping[str, Source]
    reference: str = "tuned"
    baseline: str = "base"
    out_dir: str = "evaluation"
    summary: str
    gate: Mapping[str, float] | None = None
    files: Mapping[str, str] | None = None
    parity: Mapping[str, str] | None = None
    better_than: Sequence[str] | None = None
    """What the tuned model must beat; None for all of learnt.BASELINES."""
    metrics: Sequence[str] | None = None
    """Functions of the user's own, whose files the run keeps beside its configurations."""
    divergence: Mapping[str, str] | None = None
    """Artifact → what it gave the tuned model's answers."""
    held_against: Mapping[str, str] | None = None
    """Artifact → the one that its divergence is measured from."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where the tuned model is asked."""
        if not context.answers:
            return []
        artifacts = _scored(context)
        sources: dict[str, Source] = {artifact: _generated(artifact) for artifact in artifacts}
        stage = cls(artifacts=sources, summary=layout.summary("score"), **_asked_for(context))
        return [stage.scoring("score", context, tuple(f"predict-{artifact}" for artifact in artifacts))]

    def scoring(self, name: str, context: Context, needs: tuple[str, ...]) -> Step:
        """The step: it writes the summary, and the predictions of artifacts that LLaMA-Factory answered for."""
        generated = [artifact for artifact, source in self.artifacts.items() if not isinstance(source, str)]
        written = map(layout.predictions, generated)
        packages = context.picked("rouge-score", "sacrebleu")
        beside = [f"{self.out_dir}/{artifact}.{rows}.jsonl" for artifact in self.artifacts for rows in BESIDE]
        expects = (self.summary, *written)
        return self.step(
            name,
            files=_sources(context, self.metrics),
            expects=expects,
            leaves=tuple(beside),
            needs=needs,
            inputs=packages,
        )

    def run(self) -> None:
        """Write predictions, mistakes and disagreements of each artifact, and the summary of all."""
        from orchestrator.evaluation.own import registered

        rows = {artifact: artifact_rows(artifact, source) for artifact, source in self.artifacts.items()}
        if self.template:
            rows = with_calls(rows, self.template)
        with registered(self.metrics or ()):
            scores = score(rows, self)
        for artifact in rows:
            write_artifact(artifact, rows, self)
        write_json(Path(self.summary), summarise(scores, self))


class Gate(Score):
    """The same of every GGUF beside the tuned model's, and what the gate says of them."""

    program = "gate"
    phase = "verify"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where there are GGUFs to prove."""
        wanted = kinds_asked(context)
        if not context.answers or not wanted:
            return []
        export = context.spec.export
        sources: dict[str, Source] = {name: layout.predictions(name) for name in _scored(context)}
        sources |= {f"gguf-{kind}": layout.predictions(f"gguf-{kind}") for kind in wanted}
        stage = cls(
            artifacts=sources,
            summary=layout.summary("judge"),
            gate=export.gate.model_dump(exclude={"max_perplexity_rise"}, exclude_none=True),
            files={f"gguf-{kind}": layout.gguf(context.spec.name, kind) for kind in export.gguf},
            parity={f"gguf-{kind}": layout.parity(f"gguf-{kind}") for kind in wanted},
            divergence={f"gguf-{kind}": layout.divergence(f"gguf-{kind}") for kind in wanted},
            held_against={f"gguf-{kind}": reference_of(kind, source_type(export.gguf)) for kind in wanted},
            **_asked_for(context),
        )
        proofs = (f"{proof}-{kind}" for proof in ("ask", "diverge") for kind in wanted)
        return [stage.scoring("judge", context, ("score", *proofs))]


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


def _asked_for(context: Context) -> dict[str, Any]:
    evaluate = context.spec.evaluate
    asked: dict[str, Any] = {"task": evaluate.task, "labels": list(evaluate.labels) if evaluate.labels else None}
    asked |= {"template": _readable(context.template)} if evaluate.task == "tools" else {}
    usual = evaluate.better_than == type(evaluate).model_fields["better_than"].default
    asked |= {} if usual else {"better_than": list(evaluate.better_than)}  # finished runs know of no such field
    return asked | ({"metrics": list(evaluate.metrics)} if evaluate.metrics else {})


def _readable(template: str) -> str:
    """The template. Raises InputError for one whose calls nobody could read."""
    from orchestrator.evaluation.calls import CallReader

    if CallReader(template).reads_back:
        return template
    raise InputError(
        f"evaluate.task: LLaMA-Factory does not find the calls that template {template!r} writes",
        "Choose another model.template, or evaluate.task: generation, which compares calls as texts.",
    )


def _sources(context: Context, metrics: Sequence[str] | None) -> dict[str, str]:
    """The files of the user's own metrics, which go into the run and so into the fingerprint."""
    if not metrics:
        return {}
    from orchestrator.evaluation.own import OwnMetric

    return {one.kept: _source(context.project / one.file) for one in map(OwnMetric.of, metrics)}


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"evaluate.metrics: cannot read {file.name!r}: {reason}", "Name a file you may read."
        ) from None


def _scored(context: Context) -> tuple[str, ...]:
    return tuple(artifact for artifact in ("base", "tuned") if context.spec.evaluate.asks(artifact))


def _generated(artifact: str) -> dict[str, str]:
    folder = layout.generated(artifact)
    return {
        "generated": f"{folder}/generated_predictions.jsonl",
        "rows": layout.PROMPTS,
        "rouge": f"{folder}/predict_results.json",
    }


def artifact_rows(artifact: str, source: Source) -> list[Row]:
    """The rows of a source; LLaMA-Factory's answers are joined, in order, with the rows it was given.

    Raises StageError when it answered another number of rows: it drops rows that it cannot use, with a warning.
    """
    from orchestrator.evaluation.rows import Row, read_records, read_rows

    if isinstance(source, str):
        return read_rows(Path(source))
    asked = [record for _, record in read_records(Path(source["rows"]))]
    answers = [record for _, record in read_records(Path(source["generated"]))]
    if len(asked) != len(answers):
        raise StageError(
            f"{artifact} was asked {len(asked)} rows and answered {len(answers)} ({source['generated']})",
            f"Look for dropped rows in logs/predict-{artifact}.log.",
        )
    pairs = zip(asked, answers, strict=True)
    return [Row(str(row["id"]), row["prompt"], row["label"], answer["predict"]) for row, answer in pairs]


def with_calls(rows: Mapping[str, list[Row]], template: str) -> dict[str, list[Row]]:
    """The rows with the calls in them."""
    from orchestrator.evaluation.calls import CallReader

    reader = CallReader(template)
    return {artifact: [row.with_calls(reader) for row in of] for artifact, of in rows.items()}


def score(rows: Mapping[str, list[Row]], config: Score) -> Scores:
    """Every figure, comparison and failure; what is neither reference nor baseline is held against the reference."""
    from orchestrator.evaluation.answers import untold, useless
    from orchestrator.evaluation.compare import agreement, compare
    from orchestrator.evaluation.gate import judge, judge_answers, judge_divergence, judge_parity, with_causes
    from orchestrator.evaluation.metrics import measure
    from orchestrator.evaluation.own import judge_own, titles
    from orchestrator.evaluation.parity import uncompared, uncompared_sentence

    reference, labels, seed = config.reference, config.labels, config.seed
    measurements = {name: measure(of, config.task, labels, seed) for name, of in rows.items()}
    against = {reference: config.baseline} if config.baseline in rows else {}
    against |= {name: reference for name in rows if name not in (reference, config.baseline)}
    comparisons = {
        a: compare(rows[a], rows[b], config.task, names=(a, b), labels=labels, seed=seed) for a, b in against.items()
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

    taught = _taught()
    if taught is None or config.reference not in rows:
        return [], [], {}
    tuned, wanted = rows[config.reference], learnt.BASELINES if config.better_than is None else config.better_than
    found = []
    if "base" in wanted and config.baseline in rows:
        found.append(learnt.against(tuned, rows[config.baseline], "base", "base", config.task, config.labels))
    if "majority" in wanted and config.task == "classification":
        label, same = learnt.majority_rows(tuned, taught)
        found.append(learnt.against(tuned, same, "majority", f"always answering {label!r}", config.task, config.labels))
    facts = {one.name: one.comparison.to_json() for one in found if one.name != "base"}
    facts |= learnt.seen_in(tuned, taught, config.task)
    return learnt.not_better(found), learnt.untellable(found), facts


def _taught() -> list[str] | None:
    """The last answer of each training row; none without such rows, None where what they teach is a preference."""
    file = Path(layout.TRAIN_ROWS)
    rows = read_json(file) if file.is_file() else []
    if any("chosen" in row or "kto_tag" in row for row in rows):
        return None
    return [row["conversations"][-1]["value"] for row in rows]


def write_artifact(artifact: str, rows: Mapping[str, list[Row]], config: Score) -> None:
    """An artifact's files in the output folder; a predictions file that was read from there stays as it is."""
    from orchestrator.evaluation.compare import disagreements
    from orchestrator.evaluation.metrics import mistakes
    from orchestrator.evaluation.rows import write_records, write_rows

    of, folder = rows[artifact], Path(config.out_dir)
    if config.artifacts[artifact] != str(folder / f"{artifact}.jsonl"):
        write_rows(folder / f"{artifact}.jsonl", of)
    write_records(folder / f"{artifact}.errors.jsonl", mistakes(of, config.task, config.labels))
    if artifact not in (config.reference, config.baseline):
        differing = disagreements(of, rows[config.reference], (artifact, config.reference))
        write_records(folder / f"{artifact}.disagreements.jsonl", differing)


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
    from orchestrator.evaluation.compare import compare

    asked = rows[config.reference]
    told = [name for name in CALL_METRICS[1:] if config.task == "tools" and any(is_about(name, row) for row in asked)]
    return [
        compare(rows[a], rows[b], config.task, names=(a, b), seed=config.seed, metric=name)
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
