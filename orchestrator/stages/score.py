"""score, judge: predictions become figures with intervals, and the gate's verdict."""

from __future__ import annotations

import json
from typing import Any

from orchestrator import layout
from orchestrator.stages.ask import kinds_asked
from orchestrator.stages.context import Context, worker
from orchestrator.step import Step


def build(context: Context) -> list[Step]:
    """Figures of what LLaMA-Factory answered."""
    if not context.answers:
        return []
    artifacts = _scored(context)
    sources = {artifact: _generated(artifact) for artifact in artifacts}
    return [_step(context, "score", "evaluate", sources, tuple(f"predict-{artifact}" for artifact in artifacts))]


def build_judge(context: Context) -> list[Step]:
    """Figures of every GGUF beside the tuned model's, and what the gate says of them."""
    wanted = kinds_asked(context)
    if not context.answers or not wanted:
        return []
    sources: dict[str, Any] = {name: layout.predictions(name) for name in _scored(context)}
    sources |= {f"gguf-{kind}": layout.predictions(f"gguf-{kind}") for kind in wanted}
    needs = ("score", *(f"ask-{kind}" for kind in wanted))
    extra = {
        "gate": context.spec.export.gate.model_dump(exclude={"max_perplexity_rise"}),
        "files": {f"gguf-{kind}": layout.gguf(context.spec.name, kind) for kind in context.spec.export.gguf},
        "parity": {f"gguf-{kind}": layout.parity(f"gguf-{kind}") for kind in wanted},
    }
    return [_step(context, "judge", "verify", sources, needs, extra)]


def _scored(context: Context) -> tuple[str, ...]:
    return tuple(artifact for artifact in ("base", "tuned") if context.spec.evaluate.asks(artifact))


def _generated(artifact: str) -> dict[str, str]:
    folder = layout.generated(artifact)
    return {
        "generated": f"{folder}/generated_predictions.jsonl",
        "rows": layout.PROMPTS,
        "rouge": f"{folder}/predict_results.json",
    }


def _step(
    context: Context,
    stage: str,
    phase: str,
    sources: dict[str, Any],
    needs: tuple[str, ...],
    extra: dict[str, Any] | None = None,
) -> Step:
    config = f"configs/{stage}.json"
    labels = context.spec.evaluate.labels
    values = {
        "task": context.spec.evaluate.task,
        "labels": list(labels) if labels else None,
        "seed": 0,
        "artifacts": sources,
        "reference": "tuned",
        "baseline": "base",
        "out_dir": "evaluation",
        "summary": layout.summary(stage),
        **(extra or {}),
    }
    beside = [f"evaluation/{artifact}.{rows}.jsonl" for artifact in sources for rows in ("errors", "disagreements")]
    written = [layout.predictions(artifact) for artifact, source in sources.items() if isinstance(source, dict)]
    return Step(
        stage=stage,
        phase=phase,
        argv=worker("score", config),
        files={config: json.dumps(values, ensure_ascii=False, indent=2) + "\n"},
        expects=(layout.summary(stage), *written),
        leaves=tuple(beside),
        needs=needs,
        inputs=context.picked("rouge-score", "sacrebleu"),
    )
