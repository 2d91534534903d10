"""The chain, in order. A new stage is a file of its own and one name here."""

from __future__ import annotations

from orchestrator.lib.step import PHASES, Step
from orchestrator.stages.adapter import Adapter
from orchestrator.stages.ask import Ask
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.baselines import Baselines
from orchestrator.stages.confidence import Confidence
from orchestrator.stages.convert import Convert
from orchestrator.stages.diverge import Diverge, ReadTuned
from orchestrator.stages.general import General
from orchestrator.stages.importance import Importance
from orchestrator.stages.keep import Keep
from orchestrator.stages.llamafactory import LlamaFactory
from orchestrator.stages.merge import Merge
from orchestrator.stages.mix import Mix
from orchestrator.stages.modelfile import Modelfile
from orchestrator.stages.perplexity import GatePerplexity, ReadTexts
from orchestrator.stages.predict import Predict
from orchestrator.stages.preference import Preference
from orchestrator.stages.prepare import Prepare
from orchestrator.stages.prompted import Prompted
from orchestrator.stages.quantise import Quantise
from orchestrator.stages.score import Gate, Score
from orchestrator.stages.template import Template
from orchestrator.stages.train import Train

STAGES: tuple[type[Stage], ...] = (
    Prepare,
    Train,
    Keep,
    Prompted,
    Predict,
    Score,
    Baselines,
    Preference,
    Merge,
    Template,
    Convert,
    Modelfile,
    Importance,
    Quantise,
    Mix,
    Adapter,
    Ask,
    ReadTexts,
    ReadTuned,
    Diverge,
    Gate,
    GatePerplexity,
    Confidence,
    General,
)
WORKERS: tuple[type[Stage], ...] = (*STAGES, LlamaFactory)
PROGRAMS = {stage.program: stage for stage in WORKERS if stage.program}
"""Name on the command line of `python -m orchestrator.stages` → what it carries out."""


def chain(context: Context) -> list[Step]:
    """Every step of the whole chain, each after those it needs."""
    last = PHASES.index(PHASES[-1] if context.kind.exports else "evaluate")
    steps = [step for stage in STAGES for step in stage.plan(context)]
    return [step for step in steps if PHASES.index(step.phase) <= last]
