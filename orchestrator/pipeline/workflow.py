"""From a spec file to a finished run: load, fetch, plan, carry out, record the figures, and let the gate speak."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.data import hub
from orchestrator.executors.warm import launcher
from orchestrator.lib import layout
from orchestrator.lib.errors import BusyError, GateError, StageError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import read_json, sha256, write_text
from orchestrator.lib.step import Step
from orchestrator.machine import environment, requirements
from orchestrator.models import llamacpp, sources
from orchestrator.models.earlier import run_of
from orchestrator.models.speed import CHOOSE, at_once
from orchestrator.pipeline.plan import Plan, data_files, make_plan, versions
from orchestrator.pipeline.scheduler import Reporter, Scheduler
from orchestrator.pipeline.stage_process import Starter, start
from orchestrator.runs import proof, store
from orchestrator.runs.locks import locked
from orchestrator.runs.outputs import refuse_links
from orchestrator.runs.results import measured, metrics
from orchestrator.runs.store import Run
from orchestrator.spec.load import Project
from orchestrator.stages.launch import placed
from orchestrator.stages.llamafactory import hastened, with_choices


def fetch(project: Project, progress: Progress) -> None:
    """Get what the plan needs and this machine lacks: the base model and llama.cpp's converter."""
    spec = project.spec
    runs_dir = project.runs_dir
    if sources.find_folder(spec.model.base, project.root, runs_dir) is None:  # so nothing was trained here yet
        requirements.require(spec.train, spec.launched)
    trusted = spec.model.trust_remote_code
    sources.fetch(spec.model.base, project.root, project.hashes, progress, runs_dir, trusted)
    hub.fetch_missing(data_files(spec))
    llamacpp.fetch(spec.llama_cpp, progress)


def run_until(
    project: Project, phase: str, reporter: Reporter, progress: Progress, say: Callable[[str], None] = lambda line: None
) -> Run:
    """Carry the chain out up to a phase, repeating nothing that is up to date; `say` gets a line for each file that was
    put right without that.

    Raises StageError when a stage fails and GateError when a GGUF misses what the spec demands.
    """
    fetch(project, progress)
    task = assign(project, phase, say)
    if not task.done:
        carry_out(task, reporter)
    project.hashes.save()
    require_gate(task.run, task.target_plan)
    return task.run


@dataclass(frozen=True, slots=True)
class Task:
    """A plan up to a phase, and the run that it is carried out in."""

    project: Project
    full_plan: Plan
    target_plan: Plan
    run: Run

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; a tool that was killed at the very end left an unfinished record."""
        if self.target_plan.run is None or self.left:
            return False
        record = self.target_plan.run.record
        return bool(record["status"] != "running" and record["metrics"] == metrics(self.target_plan.run.folder))

    @property
    def left(self) -> int:
        """How many stages there are still to do."""
        return sum(not planned.up_to_date for planned in self.target_plan.steps)


def assign(project: Project, phase: str, say: Callable[[str], None] = lambda line: None) -> Task:
    """Plan, and find the run or create it; one that is not as it was recorded is put right first, as far as that takes
    no stage. The base model must have been fetched."""
    full_plan = make_plan(project)
    if full_plan.run and _repaired(project, full_plan, full_plan.run, say):
        full_plan = make_plan(project)
    target_plan = full_plan.until(phase)
    if any(planned.step.stage == "train" and not planned.up_to_date for planned in target_plan.steps):
        requirements.require(project.spec.train, project.spec.launched)
    return Task(project, full_plan, target_plan, target_plan.run or create_run(project, full_plan))


def _repaired(project: Project, full_plan: Plan, run: Run, say: Callable[[str], None]) -> bool:
    """Whether there was something to put right. A run that another tool works on is left to it."""
    hashes = project.hashes
    if run.record["status"] == "running" or not (store.doubt(run) or proof.broken(run, hashes)):
        return False
    refuse_links(run.folder)
    steps = [with_choices(one.step, run.stage(one.step.stage).get("speed", {})) for one in full_plan.steps]
    texts = {path: text for step in steps for path, text in step.files.items()}
    with contextlib.suppress(BusyError), locked(run.folder):
        texts[layout.SPEC] = project.text
        for line in proof.repair(run, texts, {one.step.stage for one in full_plan.steps}, hashes):
            say(line)
    return True


def carry_out(task: Task, reporter: Reporter, launch: Starter | None = None, share: float = 1.0) -> None:
    """Do what is left of a task and record what came of it. Raises what `Scheduler.carry_out` raises.

    Without a `launch`, the spec's `execution` decides how stages start. `share` is the part of the machine it may use.
    """
    project, run, spec = task.project, task.run, task.project.spec
    launch = launch or launcher(spec.execution, task.left) or start
    share = share if spec.speed == "auto" else 0.0
    steps = [planned.step for planned in task.target_plan.steps]

    def beside(folder: Path) -> int:
        return at_once(steps, folder, share)

    def adapt(step: Step, folder: Path) -> Step:
        before = chosen_before(task, step)
        if before is not None and share:
            return placed(with_choices(step, before), folder)
        part = share if step.exclusive or step.stage not in CHOOSE else share / beside(folder)
        return placed(hastened(step, folder, part), folder)

    def findings() -> dict[str, Any]:
        found = {**measured(run.folder), "files": proof.kept(run, project.hashes)}
        return {**found, "lineage": {**run.record["lineage"], **lineage(task.full_plan, run)}}

    write_text(run.folder / layout.SPEC, project.text, durable=False)
    scheduler = Scheduler(project.runs_dir, project.hashes, reporter, launch, adapt, beside)
    scheduler.carry_out(task.target_plan, run, findings)


def chosen_before(task: Task, step: Step) -> Mapping[str, str] | None:
    """What `speed: auto` chose when the same stage was done, or begun; None where it may choose anew.

    A stage that is repeated because a file is damaged should come out the same, to the last digit, and so should one
    that goes on from a checkpoint. One that failed may have lacked memory.
    """
    before = task.run.stage(step.stage)
    if before.get("fingerprint") != task.target_plan.of(step.stage).fingerprint:
        return task.project.chosen.get(step.stage)
    return before.get("speed", {}) if before.get("status") in ("completed", "interrupted") else None


def create_run(project: Project, full_plan: Plan) -> Run:
    """A new run for a plan; its fingerprint is that of the training it is about."""
    fingerprint, environment = full_plan.of("train").fingerprint, made_with(project)
    return store.create(project.runs_dir, full_plan.spec.name, fingerprint=fingerprint, environment=environment)


def made_with(project: Project) -> dict[str, Any]:
    """The environment of a run that this machine works on."""
    spec = project.spec
    special = requirements.versions(spec.train, spec.launched)
    described = environment.describe(project.root, versions() | special)
    return {**described, "trackers": requirements.trackers(spec.train)}


def lineage(full_plan: Plan, run: Run) -> dict[str, Any]:
    """sha256 of everything between the spec and the files that are shipped."""
    outputs = {
        output["path"]: output["sha256"]
        for planned in full_plan.steps
        for output in run.stage(planned.step.stage).get("outputs", ())
    }
    trained = layout.KEPT if full_plan.spec.keeps_best else layout.TRAINED
    base = {"name": full_plan.spec.model.base, "identity": full_plan.of("train").step.inputs["base"]}
    return {
        "spec": sha256(run.folder / layout.SPEC),
        "base_model": base | ({"cure": full_plan.cure} if full_plan.cure else {}) | _ancestor(full_plan, run),
        "train_data": outputs.get(layout.TRAIN_ROWS),
        "eval_data": outputs.get(layout.EVAL_ROWS),
        "adapter": outputs.get(f"{trained}/adapter_model.safetensors"),
        "merged_model": {path: sha for path, sha in outputs.items() if path.startswith(layout.MERGED)},
        "gguf": {path: sha for path, sha in outputs.items() if path.endswith(".gguf")},
    }


def _ancestor(full_plan: Plan, run: Run) -> dict[str, Any]:
    """The run that this one continues, and what that one was made from."""
    source, _, name = full_plan.spec.model.base.partition(":")
    if source != "run":
        return {}
    parent = run_of(name, run.folder.parent)
    return {"run": parent.id, "base_model": parent.record["lineage"].get("base_model")}


def require_gate(run: Run, target_plan: Plan) -> None:
    """Raise GateError when the plan went as far as a verdict, and the tuned model or an artifact did not pass it."""
    planned = {planned.step.stage for planned in target_plan.steps}
    stage = next((stage for stage in ("judge", "score") if stage in planned), None)
    if stage is None:
        return
    file = run.folder / layout.summary(stage)
    if not file.is_file():
        raise StageError("the quality gate left no result", f"Read {run.folder / layout.log(stage)}.")
    if failures := read_json(file).get("failures", []):
        raise GateError(
            "quality gate failed: " + "\n".join(failure["sentence"] for failure in failures), _gate_hint(failures, run)
        )


def _gate_hint(failures: Sequence[Mapping[str, Any]], run: Run) -> str:
    """Where to look, or what to do, first."""
    from orchestrator.evaluation.learnt import BETTER_THAN

    found = {failure["what"] for failure in failures}
    if "answers" in found:
        return f"Read {run.id}/evaluation/tuned.jsonl; a lower learning rate or more epochs may help."
    if BETTER_THAN in found:
        return "What to try stands above and on the run's page; `evaluate.better_than: []` in the spec lets it pass."
    if found == {"uncompared"}:
        return "Hold out rows without tools, or allow it with export.gate.max_uncompared."
    return f"Rows where they differ: {run.id}/evaluation/*.disagreements.jsonl"
