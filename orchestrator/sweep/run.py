"""A sweep from its spec to its ranking."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from orchestrator import executors
from orchestrator.evaluation.metric import is_lower_better
from orchestrator.executors.base import Executor
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.words import counted
from orchestrator.models.situation import devices
from orchestrator.pipeline.plan import make_plan
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.pipeline.workflow import fetch
from orchestrator.report.live import LivePage, LiveSweep
from orchestrator.runs.locks import locked
from orchestrator.spec.launching import processes
from orchestrator.spec.load import Project
from orchestrator.spec.sections import Sweep
from orchestrator.sweep import records
from orchestrator.sweep.ranking import require_metric
from orchestrator.sweep.space import grid, label
from orchestrator.sweep.study import DEFAULT_TRIALS, Study
from orchestrator.sweep.sweeper import Sweeper, SweepReporter
from orchestrator.sweep.trial import TrialFactory
from orchestrator.sweep.winner import measure_on_test

Json = dict[str, Any]


def section(project: Project) -> Sweep:
    """The `sweep:` section. Raises InputError where there is none."""
    found: Sweep | None = project.spec.sweep
    if found is None:
        raise InputError(
            f"{project.path.name} has no sweep: section",
            "Add one, such as `sweep: {parameters: {learning_rate: [1.0e-4, 5.0e-4]}}`.",
        )
    return found


def run_sweep(
    factory: TrialFactory, sweep_reporter: SweepReporter, reporter: Reporter, executor: Executor | None = None
) -> Json:
    """Carry a sweep out, or go on with it; returns what its sweep.json says at the end.

    `reporter` sees the winner's last measurement. Raises InputError before anything starts when a trial cannot run.
    """
    folder = open_sweep(factory)
    with locked(folder):
        executor = executor or executor_of(factory, folder)
        page = LivePage(folder)
        try:
            study = open_study(folder, factory, executor)
            Sweeper(folder, factory, study, executor, LiveSweep(sweep_reporter, page)).go()
            measure_on_test(folder, factory, reporter)
        finally:
            page.write()
            factory.project.hashes.save()
        return records.read(folder)


def open_sweep(factory: TrialFactory) -> Path:
    """The sweep's folder, found or created, once it is clear that its trials can run."""
    project, sweep = factory.project, factory.sweep
    require_metric(project.spec, sweep.metric)
    require_specs(factory)
    fetch(project, factory.progress)
    key = records.key_of(make_plan(project), sweep, factory.kind)
    return records.open_folder(project.runs_dir, project.spec.name, factory.kind, key)


def open_study(folder: Path, factory: TrialFactory, executor: Executor) -> Study:
    """The study of a sweep, which goes on from the trials whose runs are still there."""

    def is_there(outcome: Json) -> bool:
        return (folder.parent / str(outcome["run"]) / layout.RECORD).is_file()

    sweep = factory.sweep
    return Study(folder / layout.STUDY, sweep, is_lower_better(sweep.metric), executor.capacity, is_there)


def require_specs(factory: TrialFactory) -> None:
    """Raise InputError, naming the point, unless every point of a grid is a spec that can run."""
    if factory.sweep.method != "grid":  # loading has tried the ends of every range
        return
    for point in grid(factory.sweep.parameters):
        try:
            factory.spec(factory.changes(point, 0))
        except InputError as error:
            raise InputError(f"the trial {label(point)} cannot run: {error.message}", error.hint) from None


def trials_ahead(factory: TrialFactory) -> list[str]:
    """The trials of a sweep, one a line, as far as they are known beforehand. Raises InputError as `run_sweep` does."""
    sweep = factory.sweep
    require_metric(factory.project.spec, sweep.metric)
    require_specs(factory)
    if sweep.method != "grid":
        points = counted(sweep.trials or DEFAULT_TRIALS, "point")
        return [f"{points} chosen by {sweep.method}, {counted(sweep.seeds, 'seed')} each"]
    return [
        f"{number}  {label(point)}"
        for number, (point, _) in enumerate(product(grid(sweep.parameters), range(sweep.seeds)), 1)
    ]


def executor_of(factory: TrialFactory, folder: Path) -> Executor:
    """Where the trials run. Raises MissingError where that is a cluster which cannot be reached."""
    sweep, spec = factory.sweep, factory.project.spec
    each = processes(spec.launch, spec.train, devices(spec.train)) if spec.launch else 1
    return executors.create(sweep.executor, sweep.wanted(sweep.executor, folder / layout.JOBS, each))
