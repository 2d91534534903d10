"""Sweeps whose trials leave this process: a project of hollow stages in real processes, and what may happen to them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.executors.base import Executor, Handle
from orchestrator.lib import process
from orchestrator.lib.step import Step
from orchestrator.pipeline.remote import Following, TaskJob, hand_over
from orchestrator.pipeline.stage_process import start
from orchestrator.pipeline.workflow import Task, assign
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Sweep
from orchestrator.sweep.run import run_sweep
from orchestrator.sweep.trial import TrialFactory
from tests.faults import stand_in

Json = dict[str, Any]
CHECKPOINT = 'mkdir -p train/checkpoint-5; echo "{}" > train/checkpoint-5/trainer_state.json; '
HANG_ONCE = f'if mkdir "$ledger.once" 2>/dev/null; then {CHECKPOINT} echo $$ > "$ledger.hangs"; sleep 3600; fi'
"""The first training that begins would never end; it leaves a checkpoint."""


@dataclass(frozen=True)
class Scripted:
    """Starts shell scripts in place of stages; can be pickled."""

    project: Path
    train: str = ""

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        return stand_in.launcher(self.project, {"train": self.train})(step, command)


class Silence:
    """Sees nothing."""

    def watch(self, *_: object) -> None: ...
    def ended(self, *_: object) -> None: ...
    def starts(self, *_: object) -> None: ...
    def tick(self) -> None: ...
    def ends(self, *_: object) -> None: ...


def make_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that can be planned here and in the jobs, which find the tests' own modules."""
    project = stand_in.make(folder)
    for name, value in stand_in.environment(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).rstrip(":"))
    return project


def sweep(project: Path, place: Executor, count: int, train: str = "", sweep_reporter: Any = None) -> Json:
    """A sweep over so many learning rates, in a place."""
    rates = [1e-4 * (1 + number) for number in range(count)]
    search = Sweep.model_validate_json(json.dumps({"parameters": {"learning_rate": rates}}))
    factory = TrialFactory(load_project(project / "spec.yaml"), search, launch=Scripted(project, train))
    return run_sweep(factory, sweep_reporter or Silence(), Silence(), place)


def submit(project: Path, place: Executor, train: str) -> tuple[Task, Handle]:
    """One run up to its training."""
    task = assign(load_project(project / "spec.yaml"), "train")
    return task, place.submit(TaskJob(task, "train", start, Scripted(project, train)))


def follow(project: Path, place: Executor, train: str = "") -> Following:
    """A run as `run --on` makes it."""
    loaded = load_project(project / "spec.yaml")
    return hand_over(loaded, "train", place, lambda done, total: None, Scripted(project, train))


def starts(project: Path, stage: str) -> list[int]:
    """The process ids of a stage, in the order of their starts."""
    ledger = project / stand_in.LEDGER
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    return [int(line.split()[1]) for line in lines if line.split()[0] == stage]


def hanging(project: Path) -> int:
    """The process id of the training that hangs, once it does; 0 before."""
    file = project / f"{stand_in.LEDGER}.hangs"
    return int(file.read_text() or 0) if file.is_file() else 0


def until(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """What a condition gives as soon as it gives anything; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def error_of(handle: Handle) -> BaseException | None:
    """What a job raised, once it is over."""
    until(handle.done)
    return handle.exception()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def newest(task: Task) -> Run:
    """A task's run as its record now is."""
    return store.load(task.run.folder)
