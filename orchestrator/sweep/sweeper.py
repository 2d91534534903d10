"""The loop: ask for trials, hand them to an executor, watch them, tell how they ended, write it all down."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestrator.evaluation.metric import is_lower_better
from orchestrator.executors.base import Executor, Handle
from orchestrator.lib import layout
from orchestrator.lib.errors import Diverged, Interrupted, OrchestratorError, Pruned
from orchestrator.lib.files import write_json
from orchestrator.pipeline.remote import note
from orchestrator.pipeline.stage_process import status_of
from orchestrator.pipeline.workflow import Task
from orchestrator.runs import store
from orchestrator.runs.training_log import read_log
from orchestrator.sweep import records
from orchestrator.sweep.ranking import figure, rank, ranking, tie_breakers, unusable
from orchestrator.sweep.study import Study, Trial
from orchestrator.sweep.trial import TrialFactory

Json = dict[str, Any]
POLL_SECONDS = (0.001, 0.1)
"""How long to wait before asking again whether a trial is over: at least, and at most."""
PATIENCE = 0.02
"""In between, so much of what the youngest trial has taken: it costs no trial more than this."""
WATCH_SECONDS = 0.5
"""How often trials are looked at while they train, and sweep.json is written anew."""
SHARE = 0.05
"""So much of the time may go into writing sweep.json, and into looking at trials: of many, both happen less often."""


class SweepReporter(Protocol):
    """Someone who wants to see how a sweep goes."""

    def watch(self, running: list[Running], done: int, total: int) -> None:
        """These trials are running."""

    def ended(self, entry: Json, total: int) -> None:
        """A trial is over; `entry` is what sweep.json says of it."""


@dataclass(slots=True)
class Running:
    """A trial that has begun."""

    trial: Trial
    changes: Json
    task: Task
    handle: Handle
    started: float = field(default_factory=time.monotonic)
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Step and watched loss, as far as the study was told."""
    reason: BaseException | None = None
    """Why it was cancelled."""

    def to_json(self) -> Json:
        """What is known of it by now, for whoever reads along."""
        return {"number": self.trial.number, "run": self.task.run.id, "parameters": self.trial.point}


@dataclass(slots=True)
class Sweeper:
    """One sweep being carried out."""

    folder: Path
    factory: TrialFactory
    study: Study
    executor: Executor
    sweep_reporter: SweepReporter
    entries: dict[int, Json] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    duplicates: list[tuple[Trial, Json, Task]] = field(default_factory=list)
    """Trials whose run another trial is carrying out right now."""
    watch_next: float = 0.0
    write_next: float = 0.0

    def go(self) -> Json:
        """Carry out every trial that is left; returns what sweep.json then says.

        Failed trials are recorded, not raised. An interruption ends the running ones first.
        """
        self.entries = {trial.number: outcome for trial, outcome in self.study.finished()}
        try:
            while self._fill() or self.running:
                self._settle()
                self._watch()
                time.sleep(self._pause())
        except BaseException as error:
            self._stop(error if isinstance(error, OrchestratorError) else Interrupted("the sweep was interrupted"))
            raise
        return self._write("completed", ranked=True)

    def _pause(self) -> float:
        if not self.running:
            return 0.0
        least, most = POLL_SECONDS
        return min(most, max(least, PATIENCE * (time.monotonic() - self.running[-1].started)))

    # ---- starting

    def _fill(self) -> bool:
        """Start trials while there is room; whether any began."""
        begun = False
        while len(self.running) < self.executor.capacity and (trial := self.study.next()) is not None:
            self._start(trial)
            begun = True
        return begun

    def _start(self, trial: Trial) -> None:
        changes: Json = {}
        try:
            changes = self.factory.changes(trial.point, trial.repetition)
            task = self.factory.task(changes)
        except Interrupted:
            raise
        except OrchestratorError as error:
            return self._tell(trial, changes, None, _failure(error))
        if any(other.task.run.id == task.run.id for other in self.running):
            return self.duplicates.append((trial, changes, task))
        if task.done:
            return self._tell(trial, changes, task, self._measured(task) | {"reused": True})
        if task.run.record["sweep"] is None:
            about = {"id": self.folder.name, "trial": trial.number, "parameters": trial.point}
            task.run.set(sweep=about)
        handle = self.executor.submit(self.factory.job(task))
        self.running.append(Running(trial, changes, task, handle))
        note(task.run, handle)

    # ---- ending

    def _settle(self) -> None:
        """Tell the study of every trial that is over."""
        for running in list(self.running):
            if not running.handle.done():
                continue
            self.running.remove(running)
            outcome = self._outcome(running, running.handle.exception())
            seconds = round(time.monotonic() - running.started, 1)
            self._tell(running.trial, running.changes, running.task, outcome | {"seconds": seconds})
            for duplicate in [duplicate for duplicate in self.duplicates if duplicate[2].run.id == running.task.run.id]:
                self.duplicates.remove(duplicate)
                self._tell(*duplicate, outcome | {"reused": True})

    def _outcome(self, running: Running, error: BaseException | None) -> Json:
        if error is None:
            return self._measured(running.task)
        if running.reason is not None:  # another machine may have been stopped too hard to say why
            store.load(running.task.run.folder).set(status=status_of(error))
        if isinstance(error, Pruned):
            return {"status": "pruned", "reason": error.message, "curve": running.curve}
        if isinstance(error, OrchestratorError) and not isinstance(error, Interrupted):
            return _failure(error)
        raise error  # an interruption, or a bug of ours

    def _measured(self, task: Task) -> Json:
        try:
            run = store.load(task.run.folder)  # another process, or machine, may have written it
            value = figure(run, self.factory.sweep.metric)
            reason = unusable(run, task.project.spec.evaluate)
            status = "unusable" if reason else "completed"
            return {"status": status, "value": value, "reason": reason, **tie_breakers(run)}
        except Interrupted:
            raise
        except (OrchestratorError, OSError) as error:
            return _failure(error)

    def _tell(self, trial: Trial, changes: Json, task: Task | None, outcome: Json) -> None:
        entry: Json = {
            "number": trial.number,
            "run": task.run.id if task else None,
            "parameters": trial.point,
            "changes": changes,
            "seed": changes.get("train.seed", self.factory.seed("train.seed")),
            "value": None,
            "reason": None,
            "seconds": 0.0,
            "reused": False,
            **outcome,
        }
        self.study.tell(trial, entry)
        self.entries[trial.number] = entry
        self.sweep_reporter.ended(entry, self.study.total)

    # ---- while they run

    def _watch(self) -> None:
        began = time.monotonic()
        if began < self.watch_next:
            return
        for running in self.running:
            self._inspect(running)
        self.watch_next = began + max(WATCH_SECONDS, (time.monotonic() - began) / SHARE)
        self.sweep_reporter.watch(self.running, len(self.entries), self.study.total)
        if time.monotonic() >= self.write_next:
            self._write("running", ranked=False)

    def _inspect(self, running: Running) -> None:
        """Cancel a trial that the study gives up."""
        stopping = self.factory.sweep.early_stopping
        entries = read_log(running.task.run.folder)
        if running.reason is not None or (running.task.run.folder / layout.TRAINED / "all_results.json").is_file():
            return  # once trained, it is worth its measurement
        name = stopping.metric if stopping else ""
        seen = {step for step, _ in running.curve}
        for entry in entries:
            step, loss = entry.get("current_steps"), entry.get(name)
            if step is None or loss is None or step in seen:
                continue
            running.curve.append((step, loss))
            if self.study.should_end(running.trial, step, loss):
                said = f"{name} {loss:.3f} at step {step} is behind the other trials"
                return self._cancel(running, Pruned(said))

    def _cancel(self, running: Running, reason: BaseException) -> None:
        running.reason = reason
        running.handle.cancel(reason)

    def _stop(self, reason: OrchestratorError) -> None:
        """End every running trial, and wait until its processes are gone."""
        for running in self.running:
            self._cancel(running, reason)
        while self.running:
            self.running = [left for left in self.running if not left.handle.done()]
            time.sleep(POLL_SECONDS[1])
        self._write("interrupted", ranked=False)

    # ---- sweep.json

    def _write(self, status: str, ranked: bool) -> Json:
        began, sweep, base = time.monotonic(), self.factory.sweep, self.factory.project
        entries = [self.entries[number] for number in sorted(self.entries)]
        page = records.read(self.folder)
        page |= {
            "status": status,
            "finished_at": store.now() if status == "completed" else None,
            "spec": _relative(base.path, base.root),
            "metric": sweep.metric,
            "direction": "minimise" if is_lower_better(sweep.metric) else "maximise",
            **sweep.model_dump(mode="json", include={"method", "parameters", "seeds", "early_stopping"}),
            "total": self.study.total,
            "trials": entries,
            "running": [running.to_json() for running in self.running],
        }
        if ranked:
            page["ranking"] = ranking(rank(entries, sweep.metric), self.folder.parent, sweep.metric, base.spec.evaluate)
        write_json(self.folder / layout.SWEEP, page, durable=ranked)
        self.write_next = time.monotonic() + (time.monotonic() - began) / SHARE
        return page


def _relative(path: Path, project: Path) -> str:
    """A path as the project's own files name it; no record holds a folder of this machine."""
    whole = path.resolve()
    return str(whole.relative_to(project)) if whole.is_relative_to(project) else whole.name


def _failure(error: BaseException) -> Json:
    message = error.message if isinstance(error, OrchestratorError) else str(error)
    return {"status": "diverged" if isinstance(error, Diverged) else "failed", "reason": message, "value": None}
