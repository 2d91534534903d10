"""train: LLaMA-Factory learns from the prepared rows."""

from __future__ import annotations

import sys

from orchestrator import layout
from orchestrator.stages.context import TRAINING_PACKAGES, Context
from orchestrator.step import Step

STAGE = "train"
WEIGHTS = {True: ("train/adapter_model.safetensors", "train/adapter_config.json"), False: ("train/config.json",)}


def build(context: Context) -> list[Step]:
    """One step; its folder keeps checkpoints, from which an interrupted training continues."""
    config = layout.config(STAGE)
    return [
        Step(
            stage=STAGE,
            phase="train",
            argv=(*_program(context), "train", config),
            files={config: render(context)},
            expects=(*WEIGHTS[context.adapts], "train/trainer_state.json", "train/all_results.json"),
            needs=("prepare",),
            inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
            env={"DISABLE_VERSION_CHECK": "0"},
            folder=layout.TRAINED,
            checkpoints=True,
        )
    ]


def _program(context: Context) -> tuple[str, ...]:
    """LLaMA-Factory's own command, except where trl brings the trainer."""
    if context.training["stage"] in ("dpo", "kto"):
        return (sys.executable, "-m", "orchestrator.workers.trl_train")
    return ("llamafactory-cli",)


def render(context: Context) -> str:
    """The training YAML, whole."""
    training = context.training
    return context.render(
        "train.yaml.j2",
        base=str(context.base_path),
        template=context.template,
        model=context.spec.model,
        training=training,
        evaluates=training.get("eval_strategy", "no") != "no",
        layout=layout,
    )
