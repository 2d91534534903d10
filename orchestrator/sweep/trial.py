"""A trial as an ordinary run: the spec it means, the task that comes of it, and the job that carries it out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.executors.base import Job
from orchestrator.executors.warm import SEVERAL, launcher
from orchestrator.lib.fetch import Progress
from orchestrator.pipeline.remote import TaskJob
from orchestrator.pipeline.stage_process import Starter, start
from orchestrator.pipeline.workflow import Task, assign, fetch
from orchestrator.spec.editing import edited, spec_key, with_value
from orchestrator.spec.load import Project, build_spec, set_values
from orchestrator.spec.sections import Spec, Sweep
from orchestrator.sweep.ranking import EVAL_LOSS
from orchestrator.sweep.records import SWEEP
from orchestrator.sweep.space import Point

PHASE = "evaluate"
SEEDED = ("train.seed",)
"""What differs between the repetitions of a point."""


@dataclass(frozen=True)
class TrialFactory:
    """What all trials of a sweep have in common."""

    project: Project
    sweep: Sweep
    seeded: tuple[str, ...] = SEEDED
    always: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key → value for every trial."""
    kind: str = SWEEP
    """Part of the folder's name."""
    progress: Progress = lambda done, total: None
    launch: Starter | None = None
    """How processes start; by default as the spec's `execution` says."""

    def changes(self, point: Point, repetition: int) -> dict[str, Any]:
        """Dotted key → value: all that a trial's spec has and the file of the sweep's spec has not."""
        made = {**self._overrides, **implied(self.project.spec, self.sweep), **self.always}
        made |= {".".join(spec_key(name)): value for name, value in point.items()}
        if self.sweep.seeds > 1:
            made |= {key: made.get(key, self.seed(key)) + repetition for key in self.seeded}
        return made

    def spec(self, changes: Mapping[str, Any]) -> Spec:
        """The spec of a trial. Raises InputError when it cannot run."""
        values = self.project.spec.model_dump(mode="json", exclude_unset=True)
        values.pop("sweep", None)
        for name, value in changes.items():
            values = with_value(values, name.split("."), value)
        return build_spec(values, self.project.root)

    def task(self, changes: Mapping[str, Any]) -> Task:
        """The run of a trial, found or created, and what is left to do for it."""
        trial = self.load(changes)
        fetch(trial, self.progress)
        return assign(trial, PHASE)

    def load(self, changes: Mapping[str, Any]) -> Project:
        """A trial as if its spec had been read from a file."""
        text = edited(self.project.text, changes, without=("sweep",))
        return replace(self.project, spec=self.spec(changes), text=text)

    def job(self, task: Task) -> Job:
        """What an executor is to do for a task."""
        return TaskJob(task, PHASE, self.starter, self.launch)

    @functools.cached_property
    def starter(self) -> Starter:
        """What starts the processes of all trials: one forkserver serves them, since a sweep has several stages."""
        return self.launch or launcher(self.project.spec.execution, SEVERAL) or start

    @functools.cached_property
    def _overrides(self) -> dict[str, Any]:
        said = set_values(self.project.overrides)
        return {name: value for name, value in said.items() if not name.startswith("sweep.")}

    def seed(self, key: str) -> int:
        """The seed of the spec itself, which the first repetition keeps."""
        spec = self.project.spec
        seed: int = spec.data.seed if key == "data.seed" else spec.training["seed"]
        return seed


def implied(spec: Spec, sweep: Sweep) -> dict[str, Any]:
    """What the training must do for a sweep to see its loss on held-out rows, where the spec does not say it."""
    if spec.train.get("eval_strategy", "no") != "no":
        return {}
    if sweep.early_stopping and sweep.early_stopping.metric == EVAL_LOSS:
        return {"train.eval_strategy": "steps", "train.eval_steps": sweep.early_stopping.grace_steps}
    return {"train.eval_strategy": "epoch"} if sweep.metric == EVAL_LOSS else {}
