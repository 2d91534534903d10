"""One run on a cluster, followed from here: its folder is shared, so its record and its logs tell how it goes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from orchestrator import records
from orchestrator.errors import BusyError, Interrupted, OrchestratorError
from orchestrator.execute import Watcher, locked
from orchestrator.executors import Executor
from orchestrator.fetch import Progress
from orchestrator.jobs import TaskJob
from orchestrator.records import Run
from orchestrator.underway import Launch, start
from orchestrator.workflow import Loaded, Task, assign, fetch, require_gate

LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Following:
    """A task that an executor has; done from the start where nothing is left to do."""

    task: Task
    place: Executor
    handle: int | None
    shown: dict[str, str] = field(default_factory=dict)
    """Stage → the status that the watcher knows of."""

    @property
    def job(self) -> str:
        """What the scheduler calls it, such as `slurm job 123`."""
        about = self.place.ticket(self.handle) if self.handle is not None else None
        return f"{about['name']} job {about['job']}" if about else "nothing left to do"

    def until_end(self, watcher: Watcher) -> Run:
        """Show how it goes and wait. Whatever interrupts that ends the job, and raises; so does a job that fails."""
        if self.handle is not None:
            try:
                self._wait(self.handle, watcher)
            except BaseException as error:
                self._cancel(self.handle, error)
                raise
        run = records.load(self.task.run.folder)
        require_gate(run, self.task.wanted)
        return run

    def _wait(self, handle: int, watcher: Watcher) -> None:
        while (ended := self.place.poll(handle)) is None:
            self._look(watcher)
            time.sleep(LOOK_SECONDS)
        self.handle = None
        self._look(watcher)
        if ended.error:
            raise ended.error

    def _cancel(self, handle: int, error: BaseException) -> None:
        if self.handle is None:
            return
        reason = error if isinstance(error, OrchestratorError) else Interrupted("interrupted")
        self.place.cancel(handle, reason)
        while self.place.poll(handle) is None:
            time.sleep(LOOK_SECONDS)

    def _look(self, watcher: Watcher) -> None:
        """Tell the watcher of what has changed in the run's record."""
        run = records.load(self.task.run.folder)
        for step in (planned.step for planned in self.task.wanted.steps if not planned.up_to_date):
            entry = run.stage(step.stage)
            status = str(entry.get("status", ""))
            if status and step.stage not in self.shown:
                watcher.starts(step, run.folder)
            elif status == "running":
                watcher.tick()
            if status not in ("", "running", self.shown.get(step.stage)):
                watcher.ends(step, status, float(entry.get("seconds") or 0))
            if status:
                self.shown[step.stage] = status


def hand_over(
    loaded: Loaded, phase: str, place: Executor, progress: Progress, launch: Launch | None = None
) -> Following:
    """Plan a run up to a phase and give it to an executor. Raises what planning raises, and the executor."""
    fetch(loaded, progress)
    task = assign(loaded, phase)
    loaded.request.hashes.save()
    if task.done:
        return Following(task, place, None)
    handle = place.submit(TaskJob(task, phase, start, launch))
    note(task.run, place, handle)
    return Following(task, place, handle)


def note(run: Run, place: Executor, handle: int) -> None:
    """Record what the scheduler calls a job, unless it works on the run already and has recorded that itself."""
    about = place.ticket(handle)
    if about is not None:
        with contextlib.suppress(BusyError), locked(run.folder):
            records.load(run.folder).set(scheduler=about)
