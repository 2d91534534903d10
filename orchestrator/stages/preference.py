"""preference, perplexity: the evaluation that fits stages whose result is not only an answer."""

from __future__ import annotations

import json
from typing import Any

from orchestrator import layout
from orchestrator.stages.context import TRAINING_PACKAGES, Context, worker
from orchestrator.stages.predict import KEPT
from orchestrator.step import Step

STAGES = {"dpo": "preference", "kto": "preference", "rm": "preference", "pt": "perplexity"}
"""What is trained → the stage that measures it."""
LIMITS = {
    "rm": "a GGUF cannot hold the value head of a reward model: nothing is exported",
    "pt": "the rows of a pretraining ask nothing: GGUFs are made, and no gate compares their answers with the model's",
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
        )
    ]


def _models(context: Context) -> dict[str, dict[str, Any]]:
    """Model → arguments. A reward model has no base to compare: its head was random before training."""
    base = {"model_name_or_path": str(context.base_path)}
    other = context.training.get("ref_model")
    if context.training["stage"] == "rm":
        return {"tuned": context.tuned()}
    return {"base": base, "tuned": context.tuned()} | ({"reference": {"model_name_or_path": other}} if other else {})


def _reference(context: Context) -> str | None:
    training = context.training
    preference = training["stage"] == "kto" or training.get("pref_loss") not in NO_REFERENCE
    if training["stage"] not in ("dpo", "kto") or not preference:
        return None
    return "reference" if training.get("ref_model") else "base"


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
