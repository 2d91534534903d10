"""preference, perplexity: the evaluation that fits stages whose result is not only an answer."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.stages.ask import kinds_asked
from orchestrator.stages.base import TRAINING_PACKAGES, Context, worker
from orchestrator.stages.predict import KEPT

STAGES = {"dpo": "preference", "kto": "preference", "rm": "preference", "pt": "perplexity"}
"""What is trained → the stage that measures it."""
LIMITS = {
    "rm": "a GGUF cannot hold the value head of a reward model: nothing is exported",
}
"""What the chain leaves out for a kind of training, and why."""
NO_REFERENCE = ("orpo", "simpo")
BETA = 0.1  # LLaMA-Factory's default


def build(context: Context) -> list[Step]:
    """One step for every kind of training but sft, whose answers say it all."""
    kind = context.training["stage"]
    if kind not in STAGES:
        return []
    stage = STAGES[kind]
    config, rows = f"configs/{stage}.json", f"evaluation/{stage}.jsonl"
    loads = _models(context)
    values = {
        "kind": kind,
        "models": loads,
        "arguments": _arguments(context),
        "reported": ["base", "tuned"] if context.spec.evaluate.asks("base") and "base" in loads else ["tuned"],
        "reference": _reference(context),
        "loss": context.training.get("pref_loss", "sigmoid"),
        "beta": context.training.get("pref_beta", BETA),
        "summary": layout.summary(stage),
        "rows": rows,
    }
    return [
        Step(
            stage=stage,
            phase="evaluate",
            argv=worker("preference", config),
            files={config: json.dumps(values, ensure_ascii=False, indent=2) + "\n"},
            expects=(layout.summary(stage), rows),
            needs=("prepare", "train"),
            inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
            alone=context.gpus > 0,
        )
    ]


def build_judge(context: Context) -> list[Step]:
    """The perplexity of every GGUF of a pretraining, and what the gate says of it."""
    wanted = kinds_asked(context)
    if not context.reads or not wanted:
        return []
    config, export = "configs/judge.json", context.spec.export
    values = {
        "measured": layout.summary("perplexity"),
        "artifacts": {f"gguf-{kind}": layout.predictions(f"gguf-{kind}") for kind in wanted},
        "parity": {f"gguf-{kind}": layout.parity(f"gguf-{kind}") for kind in wanted},
        "files": {f"gguf-{kind}": layout.gguf(context.spec.name, kind) for kind in export.gguf},
        "gate": export.gate.model_dump(),
        "summary": layout.summary("judge"),
    }
    return [
        Step(
            stage="judge",
            phase="verify",
            argv=worker("judge_perplexity", config),
            files={config: json.dumps(values, ensure_ascii=False, indent=2) + "\n"},
            expects=(layout.summary("judge"),),
            needs=("perplexity", *(f"ask-{kind}" for kind in wanted)),
        )
    ]


def _models(context: Context) -> dict[str, dict[str, Any]]:
    """Model → arguments. A reward model has no base to compare: its head was random before training."""
    if context.training["stage"] == "rm":
        return {"tuned": context.tuned()}
    other = _other_reference(context)
    return {"base": context.base(), "tuned": context.tuned()} | (
        {"reference": {"model_name_or_path": other}} if other else {}
    )


def _other_reference(context: Context) -> str | None:
    """The reference where it is not the model that training starts from: the bare one under an adapter that goes on."""
    bare = context.adapter is not None and not context.over_adapter
    return context.training.get("ref_model") or (str(context.base_path) if bare else None)


def _reference(context: Context) -> str | None:
    training = context.training
    preference = training["stage"] == "kto" or training.get("pref_loss") not in NO_REFERENCE
    if training["stage"] not in ("dpo", "kto") or not preference:
        return None
    return "reference" if _other_reference(context) else "base"


def _arguments(context: Context) -> dict[str, Any]:
    kept = {key: context.training[key] for key in KEPT if key in context.training}
    return {
        "stage": context.training["stage"],
        "trust_remote_code": context.spec.model.trust_remote_code,
        "template": context.template,
        "enable_thinking": context.spec.model.thinking,
        "do_eval": True,
        "dataset_dir": layout.DATA,
        "eval_dataset": "eval",
        "packing": False,
        "output_dir": "evaluation",
        "report_to": "none",
        "per_device_eval_batch_size": 8,
        **kept,
    }
