"""prepare: the spec's rows become the run's own, counted and checked, with the prompts as the model will see them."""

from __future__ import annotations

import json

from orchestrator import layout
from orchestrator.stages.context import Context, worker
from orchestrator.step import Step

STAGE = "prepare"


def build(context: Context) -> list[Step]:
    """One step, or none when the data was made elsewhere."""
    config = f"configs/{STAGE}.json"
    data, model = context.spec.data, context.spec.model
    values = {
        "base": str(context.base_path),
        "template": context.template,
        "thinking": model.thinking,
        "trust_remote_code": model.trust_remote_code,
        "project": str(context.project),
        "kind": context.training["stage"],
        **_packing(context),
        "cutoff_len": context.training["cutoff_len"],
        "task": context.spec.evaluate.task,
        **data.model_dump(mode="json"),
    }
    info = context.render("dataset_info.json.j2", kind=context.training["stage"])
    return [
        Step(
            stage=STAGE,
            phase="prepare",
            argv=worker("prepare", config),
            files={config: json.dumps(values, ensure_ascii=False, indent=2) + "\n", layout.DATASET_INFO: info},
            expects=(*_written(context), layout.SERVING, layout.DATASET_INFO),
            leaves=(layout.FINDINGS,),
            shared=True,
            inputs={
                **context.data_hashes,
                "base": context.base_identity,
                **context.picked("llamafactory", "transformers"),
            },
        )
    ]


def _written(context: Context) -> tuple[str, ...]:
    """The files of rows: a pretraining asks nothing, and a preference set is also asked for plain answers."""
    asked = (layout.ASKED_ROWS,) if context.training["stage"] in ("dpo", "kto") else ()
    prompts = () if context.training["stage"] == "pt" else (layout.PROMPTS,)
    return (layout.TRAIN_ROWS, layout.EVAL_ROWS, *asked, *prompts)


def _packing(context: Context) -> dict[str, bool]:
    """Whether a pretraining's texts are packed, as LLaMA-Factory does unless told otherwise."""
    if context.training["stage"] != "pt":
        return {}
    return {"packing": context.training.get("packing") is not False}
