"""Plans and finished runs in words."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.machine import requirements
from orchestrator.models.speed import forecast
from orchestrator.pipeline import estimate
from orchestrator.runs.results import summaries
from orchestrator.stages.launch import batch, node_commands

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.evaluation.measure import Measurement
    from orchestrator.lib.step import Step
    from orchestrator.pipeline.plan import Plan
    from orchestrator.runs.reuse import Planned
    from orchestrator.runs.store import Run
    from orchestrator.spec.sections import Spec

BATCH = {"per_device": "rows", "accumulation": "accumulated", "devices": "devices", "nodes": "nodes"}
"""Factors of an effective batch, and what a plan calls them."""


def plan_json(plan: Plan) -> dict[str, Any]:
    """The answer of `plan --json`."""
    return {
        "run": plan.run.id if plan.run else None,
        "cure": plan.cure,
        "steps": [
            {
                "stage": planned.step.stage,
                "up_to_date": planned.up_to_date,
                "why": planned.why,
                "argv": list(planned.step.argv),
                "speed": _faster(plan, planned),
                "launch": {"batch": batch(planned.step), "nodes": node_commands(planned.step)},
                "expects": list(planned.step.expects),
            }
            for planned in plan.steps
        ],
        "lacking": [asdict(one) for one in requirements.missing(plan.spec.train, plan.spec.launched)],
        "memory": estimate.to_json(estimate.of_plan(plan)),
    }


def plan_lines(plan: Plan, verbose: bool = False) -> list[str]:
    """The plan for people: the run, a line for each stage with its reason, and the memory that it will take.

    `verbose` adds each stage's command, as it is started in the run's folder, and what changes its speed.
    """
    where = f"run {plan.run.id}" if plan.run else "a new run"
    more = "commands are started in its folder" if verbose else "-v shows the commands"
    lines = [f"{where}; {more}", *_foreign_code(plan.spec)]
    if plan.cure:
        lines.append(
            f"! the tokenizer is used with {plan.cure}, through links in the cache; the model itself stays as it is"
        )
    for planned in plan.steps:
        mark = "·" if planned.up_to_date else "→"
        lines.append(f"{mark} {planned.step.stage:<15} {planned.why}")
        lines += _details(plan, planned) if verbose else ()
    if limit := plan.spec.kind.limit:
        lines.append(f"note: {limit}")
    lines += [f"! {one.message}: {one.fix}" for one in requirements.missing(plan.spec.train, plan.spec.launched)]
    return lines + estimate.lines(estimate.of_plan(plan))


def _details(plan: Plan, planned: Planned) -> list[str]:
    """The command of a stage, how it is divided among devices, and what is added for speed."""
    faster = [f"    + {argument}: {why}" for argument, why in _faster(plan, planned).items()]
    return [f"    {shlex.join(planned.step.argv)}", *_launched(planned.step), *faster]


def _foreign_code(spec: Spec) -> list[str]:
    """The code that is not ours and will run."""
    lines = []
    if spec.model.trust_remote_code:
        lines.append(f"! model.trust_remote_code is on: Python code of {spec.model.base} will run on this machine")
    if spec.evaluate.metrics:
        own = ", ".join(spec.evaluate.metrics)
        lines.append(f"! evaluate.trust_code is on: {own} will run on this machine")
    return lines


def _launched(step: Step) -> list[str]:
    """How many rows a step of training takes on all devices, and what each node is to run."""
    lines = []
    if parts := batch(step):
        product = " × ".join(f"{parts[key]} {words}" for key, words in BATCH.items())
        lines.append(f"    effective batch {parts['effective']} = {product}")
    if commands := node_commands(step):
        lines += [f"    node {rank}: {command}" for rank, command in enumerate(commands)]
        lines.append("    each in the run's folder, which all nodes share; `train --node-rank N` waits for it to begin")
    return lines


def _faster(plan: Plan, planned: Planned) -> dict[str, str]:
    if planned.up_to_date or plan.spec.speed == "off":
        return {}
    return forecast(planned.step, plan.run.folder if plan.run else None)


def show_run(run: Run, console: Console) -> None:
    """What came of a run: its artifacts' figures, the verdicts, and what to do with them."""
    from orchestrator.report.table import artifact_table

    measured = summaries(run.folder)
    if measured:
        artifact_table(measured, console)
    if limit := _limit(run.folder):
        console.print(f"note: {limit}", highlight=False, soft_wrap=True)
    console.print(f"run: {_short(run.folder)}", highlight=False, soft_wrap=True)
    for line in _to_try(run, measured):
        console.print(f"to try: {line}", highlight=False, soft_wrap=True)
    if file := _to_serve(run):
        command = f"ollama create {run.record['name']} -f {shlex.quote(_short(file))}"
        console.print(f"serve it: {command}", highlight=False, soft_wrap=True)


def _to_try(run: Run, measured: dict[str, Any]) -> list[str]:
    """What a training that taught nothing suggests; its page says more."""
    from orchestrator.evaluation.learnt import BETTER_THAN
    from orchestrator.report.summary import about_training
    from orchestrator.runs.training_log import read_log

    failed = {failure["what"] for failure in measured.get("failures", ())}
    return list(about_training(measured, read_log(run.folder))) if BETTER_THAN in failed else []


def show_measurement(measured: Measurement, console: Console) -> None:
    """The figures of one predictions file."""
    from orchestrator.report.table import artifact_table

    report = measured.to_json()
    artifact_table({"metrics": {"predictions": {"n": report["n"], **report["metrics"]}}}, console)


def _to_serve(run: Run) -> Path | None:
    """The Modelfile of the GGUF that the gate recommends, by its shorter name where it has one."""
    from orchestrator.serving.artifacts import recommended

    plain = run.folder / layout.MODELFILE
    own = plain.with_name(f"{plain.name}.{recommended(run)}")
    if not own.is_file():
        return None
    return plain if plain.is_file() and plain.read_bytes() == own.read_bytes() else own


def _limit(folder: Path) -> str:
    config = folder / layout.stage_config("prepare")
    return TRAINING_KINDS[read_json(config)["kind"]].limit if config.is_file() else ""


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
