"""score, judge: answers become metrics with intervals, and the gate's verdict.

What the gate has to say is written down, not raised: the figures must be readable either way, and it is for whoever
reads the summary to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json, read_json_lines, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.asked import kinds_asked, kinds_read
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import source_type
from orchestrator.stages.diverge import reference_of
from orchestrator.stages.predict import Source, artifact_rows, generated_by, own_rouge

if TYPE_CHECKING:
    from orchestrator.evaluation.measure import Task
    from orchestrator.evaluation.rows import Row
    from orchestrator.evaluation.scores import Evidence, Terms

BESIDE = ("errors", "disagreements")
"""Rows of an artifact that are written beside its answers."""


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
    """What the tuned model must beat; None for all of BASELINES."""
    metrics: Sequence[str] | None = None
    """Functions of the user's own, whose files the run keeps beside its configurations."""
    divergence: Mapping[str, str] | None = None
    """Artifact → what it gave the tuned model's answers."""
    held_against: Mapping[str, str] | None = None
    """Artifact → the one that its divergence is measured from."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where the tuned model is asked."""
        if not context.kind.answers:
            return []
        artifacts = _scored(context)
        sources: dict[str, Source] = {artifact: generated_by(artifact) for artifact in artifacts}
        stage = cls(artifacts=sources, summary=layout.summary("score"), **_asked_for(context))
        return [stage.scoring("score", context, tuple(f"predict-{artifact}" for artifact in artifacts))]

    def scoring(self, name: str, context: Context, needs: tuple[str, ...]) -> Step:
        """The step: it writes the summary, and the predictions of artifacts that LLaMA-Factory answered for."""
        generated = [artifact for artifact, source in self.artifacts.items() if not isinstance(source, str)]
        beside = [f"{self.out_dir}/{artifact}.{rows}.jsonl" for artifact in self.artifacts for rows in BESIDE]
        return self.step(
            name,
            files=_sources(context, self.metrics),
            expects=(self.summary, *map(layout.predictions, generated)),
            leaves=tuple(beside),
            needs=needs,
            inputs=context.picked("rouge-score", "sacrebleu"),
        )

    def run(self) -> None:
        """Write predictions, mistakes and disagreements of each artifact, and the summary of all."""
        from orchestrator.evaluation.own import registered
        from orchestrator.evaluation.scores import score
        from orchestrator.evaluation.summary import summarise

        evidence, terms = self._evidence(), self._terms()
        with registered(self.metrics or ()):
            found = score(evidence, terms)
        for artifact in evidence.rows:
            self._write_artifact(artifact, evidence.rows)
        write_json(Path(self.summary), summarise(found, evidence, terms) | own_rouge(self.artifacts))

    def _write_artifact(self, artifact: str, rows: Mapping[str, list[Row]]) -> None:
        """An artifact's files in the output folder; a predictions file that was read from there stays as it is."""
        from orchestrator.evaluation.compare import disagreements
        from orchestrator.evaluation.measure import mistakes
        from orchestrator.evaluation.rows import write_records, write_rows

        of, folder = rows[artifact], Path(self.out_dir)
        if self.artifacts[artifact] != str(folder / f"{artifact}.jsonl"):
            write_rows(folder / f"{artifact}.jsonl", of)
        write_records(folder / f"{artifact}.errors.jsonl", mistakes(of, self.task, self.labels))
        if artifact not in (self.reference, self.baseline):
            differing = disagreements(of, rows[self.reference], (artifact, self.reference))
            write_records(folder / f"{artifact}.disagreements.jsonl", differing)

    def _terms(self) -> Terms:
        from orchestrator.evaluation.learnt import BASELINES
        from orchestrator.evaluation.own import titles
        from orchestrator.evaluation.scores import Terms

        return Terms(
            task=self.task,
            labels=self.labels,
            template=self.template,
            seed=self.seed,
            reference=self.reference,
            baseline=self.baseline,
            gate=self.gate or {},
            better_than=BASELINES if self.better_than is None else self.better_than,
            own=titles(self.metrics or ()),
        )

    def _evidence(self) -> Evidence:
        """All that is read."""
        from orchestrator.evaluation.scores import Evidence

        rows = {artifact: artifact_rows(artifact, source) for artifact, source in self.artifacts.items()}
        serving = Path(layout.SERVING)
        return Evidence(
            rows=with_calls(rows, self.template) if self.template else rows,
            parity={name: read_json(Path(file)) for name, file in (self.parity or {}).items()},
            divergence={name: read_json_lines(Path(file)) for name, file in (self.divergence or {}).items()},
            held_against=self.held_against or {},
            sizes={name: Path(file).stat().st_size for name, file in (self.files or {}).items()},
            taught=taught(),
            has_tools=serving.is_file() and bool(read_json(serving).get("tools")),
        )


class Gate(Score):
    """The same of every GGUF beside the tuned model's, and what the gate says of them."""

    program = "gate"
    phase = "verify"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where there are GGUFs to prove."""
        wanted, read = kinds_asked(context), kinds_read(context)
        if not context.kind.answers or not wanted:
            return []
        export = context.spec.export
        sources: dict[str, Source] = {name: layout.predictions(name) for name in _scored(context)}
        sources |= {f"gguf-{kind}": layout.predictions(f"gguf-{kind}") for kind in wanted}
        stage = cls(
            artifacts=sources,
            summary=layout.summary("judge"),
            gate=export.gate.model_dump(exclude={"max_perplexity_rise"}, exclude_none=True),
            files={f"gguf-{kind}": layout.gguf(context.spec.name, kind) for kind in export.kinds},
            parity={f"gguf-{kind}": layout.parity(f"gguf-{kind}") for kind in wanted},
            divergence={f"gguf-{kind}": layout.divergence(f"gguf-{kind}") for kind in read} or None,
            held_against={f"gguf-{kind}": reference_of(kind, source_type(export.kinds)) for kind in read} or None,
            **_asked_for(context),
        )
        proofs = [*(f"ask-{kind}" for kind in wanted), *(f"diverge-{kind}" for kind in read)]
        return [stage.scoring("judge", context, ("score", *proofs))]


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


def taught() -> list[str] | None:
    """The last answer of each training row; none without such rows, None where what they teach is a preference."""
    file = Path(layout.TRAIN_ROWS)
    rows = read_json(file) if file.is_file() else []
    if any("chosen" in row or "kto_tag" in row for row in rows):
        return None
    return [row["conversations"][-1]["value"] for row in rows]


def with_calls(rows: Mapping[str, list[Row]], template: str) -> dict[str, list[Row]]:
    """The rows with the calls in them."""
    from orchestrator.evaluation.calls import CallReader

    reader = CallReader(template)
    return {artifact: [row.with_calls(reader) for row in of] for artifact, of in rows.items()}
