"""The part of the other nodes in a training that node 0 leads, in a folder of runs that all of them share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError
from orchestrator.lib.fetch import Progress
from orchestrator.machine import requirements
from orchestrator.pipeline.failure import explain
from orchestrator.pipeline.plan import make_plan
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.pipeline.stage_process import kept, start, status_of
from orchestrator.pipeline.workflow import fetch
from orchestrator.runs import reuse
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.spec.load import Project
from orchestrator.spec.sections import Launch

SECONDS = 1.0
"""How often node 0's record is looked at."""


def rank_of(launch: Launch | None, chosen: int | None, environment: Mapping[str, str] = os.environ) -> int:
    """This node's number: the one chosen, else NODE_RANK, else 0. Raises InputError where there is no such node."""
    nodes = launch.nodes if launch else 1
    if chosen is None and nodes == 1:  # what a scheduler sets there for others is none of ours
        return 0
    said = environment.get("NODE_RANK", "0") if chosen is None else str(chosen)
    if said not in map(str, range(nodes)):
        name = "NODE_RANK" if chosen is None else "--node-rank"
        raise InputError(f"{name} {said}: launch.nodes is {nodes}", f"Choose from 0 to {nodes - 1}.")
    return int(said)


def join(project: Project, rank: int, reporter: Reporter, progress: Progress) -> Run:
    """Wait until node 0 trains, train with it, and return its run. Raises StageError when this node fails."""
    requirements.require(project.spec.train, project.spec.launched)
    fetch(project, progress)
    plan = make_plan(project)
    planned = next(planned for planned in plan.steps if planned.step.stage == "train")
    run = wait_for(planned, project, reporter)
    if run.stage("train")["status"] == "running":
        take_part(planned, run, rank, reporter)
    return run


def wait_for(planned: Planned, project: Project, reporter: Reporter) -> Run:
    """The run in which node 0 does, or has done, a training."""
    while True:
        run = reuse.trained(project.runs_dir, project.spec.name, planned.fingerprint)
        entry: dict[str, Any] = run.stage("train") if run else {}
        if run and entry.get("fingerprint") == planned.fingerprint and entry["status"] in ("running", "completed"):
            return run
        reporter.tick()
        time.sleep(SECONDS)


def take_part(planned: Planned, run: Run, rank: int, reporter: Reporter) -> None:
    """Start what node 0 has started, with this node's number and a log of its own, and see it through."""
    step, began = planned.step, time.monotonic()
    argv = (*step.argv, *run.stage("train")["argv"][len(step.argv) :])  # a checkpoint to go on from, and the like
    log = run.folder / layout.log(f"train-node{rank}")
    log.unlink(missing_ok=True)
    status = "failed"
    try:
        child = start(step, process.Command(kept(step, argv), run.folder, log, {**step.env, "NODE_RANK": str(rank)}))
        reporter.starts(step, run.folder)
        if code := process.wait(child, reporter.tick):
            raise explain(step, log, code)
        status = "completed"
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        reporter.ends(step, status, time.monotonic() - began)
