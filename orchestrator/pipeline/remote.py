"""A run as a job of an executor, on this machine or planned anew on another, and followed from here."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.executors.base import Executor, Handle
from orchestrator.executors.warm import launcher
from orchestrator.lib import process
from orchestrator.lib.cpu import cores
from orchestrator.lib.errors import BusyError, Interrupted, MissingError, OrchestratorError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.step import Step
from orchestrator.pipeline.plan import make_plan
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.pipeline.stage_process import Starter, start
from orchestrator.pipeline.workflow import Task, assign, carry_out, fetch, made_with, require_gate
from orchestrator.runs import store
from orchestrator.runs.locks import locked
from orchestrator.runs.store import Run
from orchestrator.spec.load import Project

BUSY_SECONDS = 1.0
"""How often a run is tried again that somebody else is at: a network disk keeps the lock of a lost node for a while."""


@dataclass(frozen=True, slots=True)
class TaskJob:
    """Carries a task out on this machine; what is pickled for another one is the project, not the plan."""

    task: Task
    phase: str
    launch: Starter
    launch_there: Starter | None = None
    """How processes start on another machine; by default as the spec's `execution` says."""

    def __call__(self, env: Mapping[str, str], check: Callable[[], None]) -> None:
        work(self.task, self.launch, env, check)

    def __reduce__(self) -> tuple[type[JobElsewhere], tuple[Any, ...]]:
        project = replace(self.task.project, runs_dir=self.task.project.runs_dir.resolve())
        return JobElsewhere, (project, self.phase, self.task.run.id, self.launch_there)


@dataclass(frozen=True, slots=True)
class JobElsewhere:
    """Goes on with a run on the shared disk, from whatever was finished there by now, before a lost node included."""

    project: Project
    phase: str
    run: str
    launch: Starter | None = None

    def __call__(self, env: Mapping[str, str], check: Callable[[], None]) -> None:
        fetch(self.project, lambda done, total: None)
        while not (task := self._task()).done:
            try:
                launch = self.launch or launcher(self.project.spec.execution, task.left) or start
                work(task, launch, env, check)
                return task.run.set(environment=made_with(self.project))  # the one that created it said what it had
            except BusyError:
                check()
                time.sleep(BUSY_SECONDS)

    def _task(self) -> Task:
        """Raises MissingError where this machine would train something else than the one that sent the job."""
        full_plan = make_plan(self.project)
        if full_plan.run is None or full_plan.run.id != self.run:
            raise MissingError(
                f"{platform.node()} does not plan the run {self.run}: its packages or its base model are others",
                "Give all machines the same environment, best one folder on the shared disk.",
            )
        return Task(self.project, full_plan, full_plan.until(self.phase), full_plan.run)


def work(task: Task, launch: Starter, env: Mapping[str, str], check: Callable[[], None]) -> None:
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


LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Following:
    """A task that an executor has; done from the start where nothing is left to do."""

    task: Task
    handle: Handle | None
    shown: dict[str, str] = field(default_factory=dict)
    """Stage → the status that the watcher knows of."""

    @property
    def job(self) -> str:
        """What the scheduler calls it, such as `slurm job 123`."""
        about = self.handle.id if self.handle else None
        return f"{about['name']} job {about['job']}" if about else "nothing left to do"

    def until_end(self, reporter: Reporter) -> Run:
        """Show how it goes and wait. Whatever interrupts that ends the job, and raises; so does a job that fails."""
        if self.handle is not None:
            try:
                self._wait(self.handle, reporter)
            except BaseException as error:
                self._cancel(self.handle, error)
                raise
        run = store.load(self.task.run.folder)
        require_gate(run, self.task.target_plan)
        return run

    def _wait(self, handle: Handle, reporter: Reporter) -> None:
        while not handle.done():
            self._look(reporter)
            time.sleep(LOOK_SECONDS)
        self.handle = None
        self._look(reporter)
        if error := handle.exception():
            raise error

    def _cancel(self, handle: Handle, error: BaseException) -> None:
        if self.handle is None:
            return
        reason = error if isinstance(error, OrchestratorError) else Interrupted("interrupted")
        handle.cancel(reason)
        while not handle.done():
            time.sleep(LOOK_SECONDS)

    def _look(self, reporter: Reporter) -> None:
        """Tell the watcher of what has changed in the run's record."""
        run = store.load(self.task.run.folder)
        for step in (planned.step for planned in self.task.target_plan.steps if not planned.up_to_date):
            entry = run.stage(step.stage)
            status = str(entry.get("status", ""))
            if status and step.stage not in self.shown:
                reporter.starts(step, run.folder)
            elif status == "running":
                reporter.tick()
            if status not in ("", "running", self.shown.get(step.stage)):
                reporter.ends(step, status, float(entry.get("seconds") or 0))
            if status:
                self.shown[step.stage] = status


def hand_over(
    project: Project, phase: str, executor: Executor, progress: Progress, launch: Starter | None = None
) -> Following:
    """Plan a run up to a phase and give it to an executor. Raises what planning raises, and the executor."""
    fetch(project, progress)
    task = assign(project, phase)
    project.hashes.save()
    if task.done:
        return Following(task, None)
    handle = executor.submit(TaskJob(task, phase, start, launch))
    note(task.run, handle)
    return Following(task, handle)


def note(run: Run, handle: Handle) -> None:
    """Record what the scheduler calls a job, unless it works on the run already and has recorded that itself."""
    if about := handle.id:
        with contextlib.suppress(BusyError), locked(run.folder):
            store.load(run.folder).set(scheduler=about)
