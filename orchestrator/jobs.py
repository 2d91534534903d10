"""A task as a job of an executor: as it was planned here, or planned anew on another machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import process
from orchestrator.errors import BusyError, MissingError
from orchestrator.executors.warm import launcher
from orchestrator.machine import cores
from orchestrator.plan import make_plan
from orchestrator.step import Step
from orchestrator.underway import Launch, start
from orchestrator.workflow import Loaded, Task, carry_out, fetch, made_with

BUSY_SECONDS = 1.0
"""How often a run is tried again that somebody else is at: a network disk keeps the lock of a lost node for a while."""


@dataclass(frozen=True, slots=True)
class TaskJob:
    """Carries a task out on this machine; what is pickled for another one is the question, not the plan."""

    task: Task
    phase: str
    launch: Launch
    launch_there: Launch | None = None
    """How processes start on another machine; by default as the spec's `execution` says."""

    def __call__(self, env: Mapping[str, str], check: Callable[[], None]) -> None:
        work(self.task, self.launch, env, check)

    def __reduce__(self) -> tuple[type[JobElsewhere], tuple[Any, ...]]:
        loaded = self.task.loaded
        request = replace(loaded.request, runs_dir=loaded.question.runs_dir.resolve())
        return JobElsewhere, (replace(loaded, request=request), self.phase, self.task.run.id, self.launch_there)


@dataclass(frozen=True, slots=True)
class JobElsewhere:
    """Goes on with a run on the shared disk, from whatever was finished there by now, before a lost node included."""

    loaded: Loaded
    phase: str
    run: str
    launch: Launch | None = None

    def __call__(self, env: Mapping[str, str], check: Callable[[], None]) -> None:
        fetch(self.loaded, lambda done, total: None)
        while not (task := self._task()).done:
            try:
                work(task, self.launch or self._launcher(task), env, check)
                return task.run.set(environment=made_with(self.loaded))  # the one that created it said what it had
            except BusyError:
                check()
                time.sleep(BUSY_SECONDS)

    def _task(self) -> Task:
        """Raises MissingError where this machine would train something else than the one that sent the job."""
        whole = make_plan(self.loaded.question, self.loaded.request.hashes)
        if whole.run is None or whole.run.id != self.run:
            raise MissingError(
                f"{platform.node()} does not plan the run {self.run}: its packages or its base model are others",
                "Give all machines the same environment, best one folder on the shared disk.",
            )
        return Task(self.loaded, whole, whole.until(self.phase), whole.run)

    def _launcher(self, task: Task) -> Launch:
        return launcher(self.loaded.spec.spec.execution, task.left) or start


def work(task: Task, launch: Launch, env: Mapping[str, str], check: Callable[[], None]) -> None:
    """Carry a task out with something added to the environment of its processes, until `check` raises."""

    def start_with(step: Step, command: process.Command) -> process.Child:
        return launch(step, replace(command, env={**command.env, **env}))

    carry_out(task, _Checking(check), start_with, share=_share(env))


def _share(env: Mapping[str, str]) -> float:
    """The part of a CPU machine's memory for one job: as large as its part of the cores."""
    return min(1.0, int(env.get("OMP_NUM_THREADS", cores())) / cores())


@dataclass(frozen=True, slots=True)
class _Checking:
    """A watcher that shows nothing; who waits for the job reads what there is to show from the run's folder."""

    check: Callable[[], None]

    def starts(self, step: Step, folder: Any) -> None:
        self.check()

    def tick(self) -> None:
        self.check()

    def ends(self, step: Step, status: str, seconds: float) -> None:
        pass
