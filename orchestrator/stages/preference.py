"""preference, perplexity: the evaluation that fits trainings whose result is not only an answer.

Held-out rows are scored under base and tuned model, without asking for answers.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import write_json
from orchestrator.lib.step import Step
from orchestrator.lib.training_kinds import TRAINING_KINDS, TrainingKind
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.predict import KEPT

if TYPE_CHECKING:
    from orchestrator.evaluation.intervals import Array, Interval
    from orchestrator.stages.likelihoods import Scores

NO_REFERENCE = ("orpo", "simpo")
AVERAGED = ("ipo", "orpo", "simpo")
"""DPO losses by the mean log-likelihood of a token; the others take the sum."""
BETA = 0.1  # LLaMA-Factory's default


@dataclass(frozen=True)
class Preference(Stage):
    """What every model gives every row, and the metrics."""

    program = "preference"
    phase = "evaluate"
    kind: str
    models: Mapping[str, Mapping[str, Any]]
    """Model → the arguments that load it."""
    arguments: Mapping[str, Any]
    """Arguments of LLaMA-Factory that they share."""
    reported: Sequence[str]
    reference: str | None
    """The model that rewards are measured against."""
    loss: str
    beta: float
    summary: str
    rows: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step for every kind of training but sft, whose answers say it all."""
        name, loads = context.kind.measured_by, _models(context)
        if not name:
            return []
        stage = cls(
            kind=context.training["stage"],
            models=loads,
            arguments=_arguments(context),
            reported=["base", "tuned"] if context.spec.evaluate.asks("base") and "base" in loads else ["tuned"],
            reference=_reference(context),
            loss=context.training.get("pref_loss", "sigmoid"),
            beta=context.training.get("pref_beta", BETA),
            summary=layout.summary(name),
            rows=f"evaluation/{name}.jsonl",
        )
        return [
            stage.step(
                name,
                expects=(stage.summary, stage.rows),
                needs=("prepare", context.trained_by),
                inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
                exclusive=context.gpus > 0,
            )
        ]

    def run(self) -> None:
        """Write both."""

        import numpy as np

        from orchestrator.evaluation.rows import write_records
        from orchestrator.stages.likelihoods import measure

        scores, desirable = {}, np.zeros(0, dtype=bool)
        for name, loads in self.models.items():
            scores[name], desirable = measure({**self.arguments, **loads}, self.kind)
            gc.collect()
        found = {name: self.measured(name, scores, desirable) for name in self.reported}
        write_records(Path(self.rows), records(scores, desirable, self.kind))
        n = len(scores["tuned"].values)
        metrics = {
            name: {"n": n, **{key: interval.to_json() for key, interval in values.items()}}
            for name, values in found.items()
        }
        write_json(Path(self.summary), {"metrics": metrics})

    def measured(self, name: str, scores: Mapping[str, Scores], desirable: Array) -> dict[str, Interval]:
        """A model's figures. Rewards are relative to the reference, which has none of its own."""
        from orchestrator.evaluation import preference

        own, kind = scores[name], TRAINING_KINDS[self.kind]
        if kind.reads:
            return preference.perplexity(own.values[:, 0], own.tokens[:, 0])
        values = own.values
        if kind.tags or self.loss in AVERAGED:  # tagged answers belong to different prompts
            values = own.values / own.tokens
        figures = _accuracy(values, desirable, kind, preference.ACCURACY)
        if kind.value_head:
            return figures | preference.margin(own.values)
        if self.reference is None:
            return figures | preference.margin(self.beta * values)
        if name != "tuned":
            return figures
        rewards = self.beta * _implicit(own, scores[self.reference], self.loss)
        figures |= _accuracy(rewards, desirable, kind, preference.REWARD_ACCURACY)
        if kind.tags:
            return figures | preference.ranked_margin(rewards[:, 0], desirable)
        return figures | preference.margin(rewards)


def _accuracy(values: Array, desirable: Array, kind: TrainingKind, name: str) -> dict[str, Interval]:
    from orchestrator.evaluation import preference

    if kind.tags:
        return preference.ranked(values[:, 0], desirable, name)
    return preference.preferred(values, name)


def _implicit(own: Scores, reference: Scores, loss: str) -> Array:
    gained = own.values - reference.values
    return gained / own.tokens if loss in AVERAGED else gained


def records(scores: Mapping[str, Scores], desirable: Array, kind: str) -> list[dict[str, Any]]:
    """A row each, with what every model gave it; log-likelihoods in nats."""
    of = TRAINING_KINDS[kind]
    names = ("chosen", "rejected") if of.pairs else ("text",) if of.reads else ("answer",)
    rows = []
    for at in range(len(scores["tuned"].values)):
        given = {model: dict(zip(names, its.values[at].tolist(), strict=True)) for model, its in scores.items()}
        thumb = {"desirable": bool(desirable[at])} if of.tags else {}
        read = scores["tuned"].read[at] if of.reads else {}
        rows.append({"id": str(at + 1), **thumb, **given, **read})
    return rows


def _models(context: Context) -> dict[str, dict[str, Any]]:
    """Model → arguments. A reward model has no base to compare: its head was random before training."""
    if context.kind.value_head:
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
    kind, loss = context.kind, context.training.get("pref_loss")
    if not kind.prefers or (kind.pairs and loss in NO_REFERENCE):  # only pairs have a choice of losses
        return None
    return "reference" if _other_reference(context) else "base"


def _arguments(context: Context) -> dict[str, Any]:
    kept = {key: context.training[key] for key in KEPT if key in context.training}
    return {
        "stage": context.training["stage"],
        "trust_remote_code": context.spec.model.trust_remote_code,
        **context.template_arguments,
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
