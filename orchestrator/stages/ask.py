"""ask-…: every GGUF answers the held-out rows in llama.cpp, from prompts whose tokens must equal those of training.

The texts of a pretraining ask nothing: there it reads them.
"""

from __future__ import annotations

import json

from orchestrator import layout
from orchestrator.stages import adapter
from orchestrator.stages.context import Context, worker
from orchestrator.stages.export import source_type
from orchestrator.step import Step


def build(context: Context) -> list[Step]:
    """One process for each GGUF, since a broken file may take llama.cpp down with it."""
    if not (context.answers or context.reads):
        return []
    return [_step(context, kind) for kind in kinds_asked(context)]


def kinds_asked(context: Context) -> tuple[str, ...]:
    """Every GGUF to prove, the adapter over its base model among them."""
    export = context.spec.export
    made = (*export.gguf, *((adapter.KIND,) if export.adapter else ()))
    return tuple(kind for kind in made if context.spec.evaluate.asks(f"gguf-{kind}"))


def _step(context: Context, kind: str) -> Step:
    artifact, config = f"gguf-{kind}", f"configs/ask-{kind}.json"
    values = {
        "gguf": layout.gguf(context.spec.name, adapter.BASE_KIND if kind == adapter.KIND else kind),
        "prompts": layout.READ_ROWS if context.reads else layout.PROMPTS,
        "answers": layout.predictions(artifact),
        "parity": layout.parity(artifact),
        "max_new_tokens": context.spec.evaluate.max_new_tokens,
    }
    if context.reads:
        values["texts"] = layout.EVAL_ROWS
    if kind == adapter.KIND:
        values["adapter"] = layout.gguf(context.spec.name, kind)
    return Step(
        stage=f"ask-{kind}",
        phase="verify",
        argv=worker("perplexity_gguf" if context.reads else "ask_gguf", config),
        files={config: json.dumps(values, indent=2) + "\n"},
        expects=(layout.predictions(artifact), layout.parity(artifact)),
        needs=("prepare", *(("perplexity",) if context.reads else ()), _made_by(context, kind)),
        inputs=context.picked("llama-cpp-python"),
        judges=True,
    )


def _made_by(context: Context, kind: str) -> str:
    if kind == adapter.KIND:
        return adapter.STAGE
    return "convert" if kind == source_type(context.spec.export.gguf) else f"quantise-{kind}"
