"""Is a run still what its record says, and does making it anew give the same?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError, OrchestratorError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import HashCache
from orchestrator.lib.step import PHASES
from orchestrator.pipeline.plan import make_plan
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.pipeline.workflow import fetch, run_until
from orchestrator.runs import proof, store
from orchestrator.runs.compare import dotted
from orchestrator.runs.outputs import damage
from orchestrator.runs.store import Run
from orchestrator.spec.load import Project, load_project

Json = dict[str, Any]
SHIPPED = ("train_data", "eval_data", "adapter", "merged_model", "gguf")
"""Parts of the lineage that a repetition must bring out again, byte by byte; logs and timings may differ."""


# ---- verify


def remedy(run: Run) -> str:
    """The command that makes again what is damaged in a run; empty where this machine cannot make this run again."""
    spec, runs_dir = run.folder / layout.SPEC, run.folder.parent
    known = proof.recorded(run).get(layout.SPEC)
    if known and damage(run.folder, known, HashCache(paranoid=True)):
        return "orchestrator run --paranoid"  # with the spec that it was made from
    try:
        found = make_plan(load_project(spec, runs_dir=runs_dir)).run
    except OrchestratorError:
        return ""
    if found is None or found.folder.resolve() != run.folder.resolve():
        return ""
    elsewhere = "" if layout.project_of(spec) / "runs" == runs_dir.resolve() else f" --runs-dir {_short(runs_dir)}"
    return f"orchestrator run {_short(spec)} --paranoid{elsewhere}"


def _short(path: Path) -> str:
    try:
        return shlex.quote(str(path.resolve().relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(path.resolve()))


# ---- reproduce


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What differs between a run and its repetition."""

    again: Run
    results: tuple[str, ...]
    """Of what is shipped or measured; empty when the run was reproduced."""
    made_with: tuple[str, ...]
    """Of interpreter, packages, GPU and commit: where to look for the cause."""
    files: tuple[str, ...]
    """All outputs with other contents; some of them hold durations, and never come out the same."""

    def to_json(self) -> Json:
        """The answer of `reproduce --json`."""
        answer = {"run": self.again.id, "reproduced": not self.results}
        return {**answer, "results": self.results, "made_with": self.made_with, "files": self.files}


def reproduce(run: Run, root: Path, into: Path, reporter: Reporter, progress: Progress) -> Reproduction:
    """Make a run anew in another folder of runs, taking over no result, and compare the two.

    Raises InputError when the run has no finished stage or its spec no longer holds, and what a chain raises.
    """
    if into.resolve() == run.folder.parent.resolve():
        raise InputError(f"{into} holds the run itself", "Name another folder with --into: nothing may be taken over.")
    project = load_project(run.folder / layout.SPEC, runs_dir=into, root=root)
    chosen = {stage: entry.get("speed", {}) for stage, entry in run.record["stages"].items()}
    project = replace(project, chosen=chosen)  # the last digits depend on it
    fetch(project, progress)
    try:
        again = run_until(project, _furthest(run, project), reporter, progress)
    except GateError:  # the same verdict is part of the same result
        again = store.find(into, None)
    return compare(run, again)


def _furthest(run: Run, project: Project) -> str:
    """The last phase that the run finished a stage of."""
    steps = [planned.step for planned in make_plan(project).steps]
    done = [PHASES.index(step.phase) for step in steps if run.stage(step.stage).get("status") == "completed"]
    if not done:
        raise InputError(f"run {run.id} has finished nothing", "Name a run that has; see `orchestrator runs list`.")
    return PHASES[max(done)]


def compare(run: Run, again: Run) -> Reproduction:
    """What differs between two runs of the same spec."""
    before, after = _hashes(run), _hashes(again)
    return Reproduction(
        again,
        tuple(_differing(_results(run), _results(again))),
        tuple(_differing(_made_with(run), _made_with(again), values=True)),
        tuple(_differing(before, after)),
    )


def _results(run: Run) -> Json:
    lineage = {key: run.record["lineage"].get(key) for key in SHIPPED}
    return dict(dotted({**lineage, "metrics": run.record["metrics"]}))


def _made_with(run: Run) -> Json:
    return dict(dotted(run.record["environment"]))


def _hashes(run: Run) -> Json:
    return {path: entry["sha256"] for path, entry in proof.recorded(run).items()}


def _differing(before: Json, after: Json, values: bool = False) -> Iterator[str]:
    for key in dict.fromkeys([*before, *after]):
        if (old := before.get(key)) != (new := after.get(key)):
            yield f"{key}: {old} → {new}" if values else key
