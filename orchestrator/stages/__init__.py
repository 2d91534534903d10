"""The chain, in order. A new stage is a file of its own and one line here."""

from __future__ import annotations

from orchestrator.lib.step import PHASES, Step
from orchestrator.stages import adapter, ask, export, predict, preference, prepare, score, train
from orchestrator.stages.base import Context

STAGES = (
    prepare.build,
    train.build,
    predict.build,
    score.build,
    preference.build,
    export.build_merge,
    export.build_template,
    export.build_convert,
    export.build_modelfile,
    export.build_quantise,
    adapter.build,
    ask.build,
    score.build_judge,
    preference.build_judge,
)


def chain(context: Context) -> list[Step]:
    """Every step of the whole chain, each after those it needs."""
    kind = context.training["stage"]
    last = PHASES.index("evaluate" if kind == "rm" else PHASES[-1])
    steps = [step for build in STAGES for step in build(context)]
    return [step for step in steps if PHASES.index(step.phase) <= last]
