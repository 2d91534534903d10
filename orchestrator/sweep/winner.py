"""What follows a sweep: the winner measured once on rows that chose nothing, and its values in a spec."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_json, write_text
from orchestrator.lib.step import fingerprint
from orchestrator.pipeline.plan import Plan, make_plan
from orchestrator.pipeline.scheduler import Reporter, Scheduler, take_over
from orchestrator.pipeline.workflow import create_run
from orchestrator.runs.results import metrics
from orchestrator.runs.store import Run
from orchestrator.spec.editing import edited
from orchestrator.spec.load import Project, editable, load_project
from orchestrator.sweep import records
from orchestrator.sweep.trial import TrialFactory

MEASURED = ("prepare", "predict-tuned", "score")
Json = dict[str, Any]


def measure_on_test(folder: Path, factory: TrialFactory, reporter: Reporter) -> Json | None:
    """Score the winner on `data.test`, unless it has been; returns `{run, trial, metrics}`, None without such rows.

    The best of many looks better than it is on the rows that it was chosen by.
    """
    page = records.read(folder)
    test = factory.project.spec.data.test
    if test is None or not page["ranking"] or not records.is_best(page["ranking"][0]):
        return None
    winner = records.best_trial(folder)
    known: Json | None = page.get("test")
    if known is None or known["trial"] != winner["number"]:
        run = _measure(factory, winner, test, records.best_run(folder), reporter)
        known = {"run": run.id, "trial": winner["number"], "metrics": metrics(run.folder)["tuned"]}
        write_json(folder / layout.SWEEP, page | {"test": known})
    return known


def _measure(factory: TrialFactory, winner: Json, test: str, trained: Run, reporter: Reporter) -> Run:
    """A run of its own that takes the trained model over and answers the test rows."""
    swap = {"data.eval": test, "data.eval_fraction": None, "data.test": None, "evaluate.baseline": False}
    project = factory.load({**winner["changes"], **swap})
    full_plan = make_plan(project)
    run = create_run(project, full_plan)
    write_text(run.folder / layout.SPEC, project.text)
    take_over(full_plan.of("train").step, run, trained, str(trained.stage("train")["fingerprint"]))
    Scheduler(project.runs_dir, project.hashes, reporter, factory.starter).carry_out(_about(full_plan, trained), run)
    run.set(metrics=metrics(run.folder))
    return run


def _about(full_plan: Plan, trained: Run) -> Plan:
    """The measuring steps of a plan, about a model that was trained by another one: their fingerprints say so."""
    prints = {"train": str(trained.stage("train")["fingerprint"])}
    steps = []
    for planned in full_plan.steps:
        if planned.step.stage in MEASURED:
            step = planned.step
            prints[step.stage] = fingerprint(step, prints, {}) if step.needs else planned.fingerprint
            steps.append(replace(planned, fingerprint=prints[step.stage]))
    return Plan(full_plan.spec, None, tuple(steps))


def overrides(project: Project, wanted: str) -> list[str]:
    """What `--set` must say for the spec of a project to be the winner's.

    Raises InputError when the spec has changed since, so that it would train something else.
    """
    folder = records.find(project.runs_dir, wanted)
    winner = records.best_run(folder)
    found = [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in records.best_trial(folder)["changes"].items()
    ]
    planned = make_plan(load_project(project.path, (*found, *project.overrides), project.runs_dir, project.force)).run
    if planned is None or planned.record["fingerprint"] != winner.record["fingerprint"]:
        raise InputError(
            f"{project.path} does not train what the winner of {folder.name} was trained with",
            f"Name the spec of the sweep ({records.read(folder)['spec']}) as it was, or run the sweep again.",
        )
    return found


def promoted(folder: Path, spec: Path) -> str:
    """The text of a spec with the winner's values in it, comments kept. Raises InputError where the file is none."""
    return edited(editable(spec), records.best_trial(folder)["changes"])
