"""train: LLaMA-Factory learns from the prepared rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.models.speed import MICRO
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.launch import launched, spawns

STAGE = "train"
WEIGHTS = {True: ("train/adapter_model.safetensors", "train/adapter_config.json"), False: ("train/config.json",)}

HELD_OUT = (
    layout.EVAL_ROWS, layout.ASKED_ROWS, layout.PROMPTS, layout.VALIDATION, layout.SERVING, layout.FINDINGS,
)  # fmt: skip
"""What `prepare` leaves that no weight depends on, as long as nothing is measured between the epochs."""
READS = (f"{layout.DATA}/*", *(f"!{path}" for path in HELD_OUT))
CHOSEN_FROM = tuple(
    f"{layout.TRAINED}/checkpoint-*/{name}" for name in ("adapter_*", "trainer_state.json", "tokenizer*", "chat_*")
)
"""What a checkpoint that may be chosen consists of."""


class Train(Stage):
    """`llamafactory-cli train`; its folder keeps checkpoints, from which an interrupted training continues."""

    phase = "train"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        config, many = layout.config(STAGE), launched(context)
        return [
            Step(
                stage=STAGE,
                phase=cls.phase,
                argv=(*_program(context), "train", config),
                files={config: render(context, many.arguments), **many.files},
                arguments={**_loads(context), **context.training, **many.arguments},
                expects=(*WEIGHTS[context.adapts], "train/trainer_state.json", "train/all_results.json"),
                needs=("prepare",),
                reads=(*READS, *((layout.EVAL_ROWS,) if _evaluates(context.training) else ())),
                inputs={
                    "base": context.base_identity,
                    **context.picked(*TRAINING_PACKAGES),
                    **context.argument_hashes,
                    **many.inputs,
                },
                env={"DISABLE_VERSION_CHECK": "0", **many.env},
                fingerprint_files={config: render(context, many.one_device)},
                folder=layout.TRAINED,
                checkpoints=True,
                shares=CHOSEN_FROM if context.spec.keeps_best else (),
                spawns=spawns(context, many.env),
                exclusive=True,
                unset=() if context.spec.launch or any(key in context.spec.train for key in MICRO) else MICRO,
            )
        ]


def _program(context: Context) -> tuple[str, ...]:
    """LLaMA-Factory's own command, except where trl brings the trainer."""
    if context.kind.prefers:
        return (sys.executable, "-m", "orchestrator.stages.trl")
    return ("llamafactory-cli",)


def _loads(context: Context) -> dict[str, Any]:
    return {**context.base(), "trust_remote_code": context.spec.model.trust_remote_code}


def _evaluates(training: Mapping[str, Any]) -> bool:
    """Whether the held-out rows are measured between the epochs, which may also decide which checkpoint is kept."""
    return bool(training.get("eval_strategy", "no") != "no")


def render(context: Context, changes: Mapping[str, Any]) -> str:
    """The training YAML, whole, with some arguments changed."""
    training = {**context.training, **changes}
    return context.render(
        "train.yaml.j2",
        loads=context.base(),
        **context.template_arguments,
        model=context.spec.model,
        training=training,
        evaluates=_evaluates(training),
        layout=layout,
    )
