"""What `speed: auto` puts in the place of `llamafactory-cli train`: the same training or prediction, less computed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step, with_arguments
from orchestrator.models import speed
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.trainers import ANSWER_LOGITS, Trainer, by_length, can_narrow, shared_prefix

WHY = "speed: auto chose what follows; results are the same, but for rounding where steps are divided differently"
TRL = "orchestrator.stages.trl"


@dataclass(frozen=True, kw_only=True)
class LlamaFactory(Stage):
    """Hands over to LLaMA-Factory, whose workflows are given trainers of ours in place of their own.

    No stage of the chain: a step that is about to start is turned into one, so what is planned stays LLaMA-Factory's
    own command. Each boolean is a choice of `orchestrator.models.speed`, by its name there.
    """

    program = "llamafactory"
    phase = "train"
    config: str
    """LLaMA-Factory's own configuration."""
    trl: bool = False
    """Whether trl brings the trainer."""
    answer_logits: bool = False
    by_length: bool = False
    shared_prefix: bool = False

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """None: see `hastened`."""
        return []

    def run(self) -> None:
        """Train or predict; `key=value` after the configuration goes to LLaMA-Factory, as on its own command line."""
        if self.trl:
            from orchestrator.stages.trl import correct_flags

            correct_flags()
        sys.argv = ["llamafactory-cli", self.config, *sys.argv[3:]]
        from llamafactory.train.tuner import run_exp

        self.exchange(_stage(Path(self.config)))
        run_exp()

    def exchange(self, stage: str) -> None:
        """Put trainers of ours in the place of a workflow's own."""
        name, narrowed = ANSWER_LOGITS[stage]
        module = importlib.import_module(f"llamafactory.train.{stage}.workflow")
        if not hasattr(module, name):  # dpo's workflow imports its trainer when it runs
            module = importlib.import_module(f"llamafactory.train.{stage}.trainer")
        own = getattr(module, name)

        def make(*, model: Any, **kwargs: Any) -> Any:
            trainer: Trainer = own
            if self.answer_logits and can_narrow(model):
                trainer = narrowed(trainer)
            elif self.answer_logits:
                print(f"logits at every token: {type(model).__name__}.forward takes no logits_to_keep", flush=True)
            if self.by_length:
                trainer = by_length(trainer)
            if self.shared_prefix:
                trainer = shared_prefix(trainer)
            return trainer(model=model, **kwargs)

        setattr(module, name, make)


def _stage(config: Path) -> str:
    import yaml

    return str(yaml.safe_load(config.read_text(encoding="utf-8"))["stage"])


def hastened(step: Step, run_folder: Path, share: float = 1.0) -> Step:
    """A step that is about to start, with what is chosen for it now."""
    return with_choices(step, speed.chosen(speed.choices(step, run_folder, share)))


def with_choices(step: Step, chosen: Mapping[str, str]) -> Step:
    """The step with choices, name → YAML scalar: those of LLaMA-Factory's arguments in its configuration, those of ours
    in a program of ours, which then runs it."""
    own = {name: True for name in chosen if name in speed.OWN}
    theirs = {name: value for name, value in chosen.items() if name not in speed.OWN}
    made = with_arguments(step, theirs, WHY) if theirs else step
    if not own:
        return replace(made, speed=chosen) if chosen else step
    name = f"{step.stage}-speed"
    stage = LlamaFactory(config=layout.config(step.stage), trl=TRL in step.argv, **own)
    handed = stage.step(name)
    return replace(made, argv=handed.argv, files={**made.files, **handed.files}, speed=chosen)
