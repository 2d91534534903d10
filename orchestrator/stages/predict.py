"""predict-base, predict-base-prompted, predict-tuned: LLaMA-Factory answers the held-out rows, greedily; and how what
it answered is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step
from orchestrator.stages import prompted
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.launch import single_process, spawns

if TYPE_CHECKING:
    from orchestrator.evaluation.rows import Row

Source = str | Mapping[str, str]
"""A predictions file, or {generated, rows, rouge}: LLaMA-Factory's output, the rows it was given, its own figures."""
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
        if not context.kind.answers:
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


# ---- what it left


def generated_by(artifact: str) -> dict[str, str]:
    """LLaMA-Factory's answers for an artifact, as a source."""
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
    from orchestrator.evaluation.rows import Row, read_objects, read_rows

    if isinstance(source, str):
        return read_rows(Path(source))
    asked = read_objects(Path(source["rows"]))
    answers = read_objects(Path(source["generated"]))
    if len(asked) != len(answers):
        raise StageError(
            f"{artifact} was asked {len(asked)} rows and answered {len(answers)} ({source['generated']})",
            f"Look for dropped rows in logs/predict-{artifact}.log.",
        )
    pairs = zip(asked, answers, strict=True)
    return [Row(str(row["id"]), row["prompt"], row["label"], answer["predict"]) for row, answer in pairs]


def own_rouge(sources: Mapping[str, Source]) -> dict[str, Any]:
    """`predict_rouge` of a summary: LLaMA-Factory's own figures of each artifact that it answered for, if any."""
    files = {artifact: source["rouge"] for artifact, source in sources.items() if not isinstance(source, str)}
    read = {artifact: read_json(Path(file)) for artifact, file in files.items()}
    named = ("predict_rouge", "predict_bleu")
    own = {artifact: {key: of[key] for key in of if key.startswith(named)} for artifact, of in read.items()}
    return {"predict_rouge": own} if own else {}
