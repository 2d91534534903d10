"""predict-base, predict-base-prompted, predict-tuned: LLaMA-Factory answers the held-out rows, greedily."""

from __future__ import annotations

from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.stages import prompted
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.launch import single_process, spawns

KEPT = (
    "cutoff_len", "per_device_eval_batch_size", "bf16", "fp16", "flash_attn", "quantization_bit", "quantization_method",
    "quantization_type", "double_quantization", "rope_scaling", "seed", "use_cpu",
)  # fmt: skip
"""Training arguments that also decide how the model answers."""


class Predict(Stage):
    """`llamafactory-cli train` with do_predict."""

    phase = "evaluate"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step for each artifact that LLaMA-Factory answers with; none where training teaches no answers."""
        if not context.answers:
            return []
        tuned = _step(context, "tuned", context.tuned(), ("prepare", context.trained_by))
        if not context.spec.evaluate.asks("base"):
            return [tuned]
        base = _step(context, "base", context.base(), ("prepare",))
        told = [_step(context, prompted.ARTIFACT, context.base(), ("prompted",))] if prompted.is_asked(context) else []
        return [base, *told, tuned]


def _step(context: Context, artifact: str, model: dict[str, Any], needs: tuple[str, ...]) -> Step:
    stage = f"predict-{artifact}"
    config, folder = layout.config(stage), layout.generated(artifact)
    kept = {key: context.training[key] for key in KEPT if key in context.training}
    told = artifact == prompted.ARTIFACT
    if told:
        kept["cutoff_len"] += prompted.ROOM
    text = context.render(
        "predict.yaml.j2",
        loads=model,
        **context.template_arguments,
        model=context.spec.model,
        kept=kept,
        max_new_tokens=context.spec.evaluate.max_new_tokens,
        asked="asked" if context.kind.prefers else "eval",
        rows=layout.PROMPTED if told else layout.DATA,
        folder=folder,
    )
    return Step(
        stage=stage,
        phase=Predict.phase,
        argv=("llamafactory-cli", "train", config),
        files={config: text},
        arguments={**model, **kept, "max_new_tokens": context.spec.evaluate.max_new_tokens},
        expects=(f"{folder}/generated_predictions.jsonl", f"{folder}/predict_results.json"),
        needs=needs,
        inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
        env=single_process(context),
        folder=folder,
        single_flight=artifact != "tuned",
        spawns=spawns(context, {}),
        exclusive=context.gpus > 0,
    )
