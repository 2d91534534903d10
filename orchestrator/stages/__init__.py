"""The chain, in order. A new stage is a file of its own and one line here."""

from __future__ import annotations

from orchestrator.stages import adapter, ask, export, predict, prepare, score, train
from orchestrator.stages.context import Context
from orchestrator.step import Step

STAGES = (
    prepare.build,
    train.build,
    predict.build,
    score.build,
    export.build_merge,
    export.build_template,
    export.build_modelfile,
    export.build_convert,
    export.build_quantise,
    adapter.build,
    ask.build,
    score.build_judge,
)


def chain(context: Context) -> list[Step]:
    """Every step of the whole chain, each after those it needs."""
    return [step for build in STAGES for step in build(context)]
