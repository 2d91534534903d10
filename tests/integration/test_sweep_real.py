"""A sweep over the real LLaMA-Factory: killed, gone on with, promoted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.lib import process
from tests.conftest import Result

pytestmark = pytest.mark.slow

SWEEP = """\
sweep:
  parameters:
    learning_rate: [1.0e-2, 1.0e-3]  # what we search
  early_stopping: {method: median, grace_steps: 4}  # of two trials, none is ended
  metric: eval_loss
  parallel: 2
"""
PATIENCE = 120.0


def test_a_sweep_survives_kill_and_says_what_it_found(project: Path, orchestrator: Callable[..., Result]) -> None:
    spec = project / "spec.yaml"
    spec.write_text(spec.read_text(encoding="utf-8") + SWEEP, encoding="utf-8")
    kill_while_training(project)
    until(lambda: not processes_in(project / "runs"))

    found = orchestrator("sweep", "--json", cwd=project)
    assert found.code == 0, found.stderr
    page = found.json
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 2
    assert page["direction"] == "minimise"
    values = [place["value"]["value"] for place in page["ranking"]]
    assert values == sorted(values)
    trainings = [json.loads(file.read_text()) for file in (project / "runs").glob("*/run.json")]
    assert len(trainings) == 2

    best = orchestrator("runs", "best", page["id"], "--json", cwd=project)
    assert best.json["id"] == next(t["run"] for t in page["trials"] if t["number"] == page["ranking"][0]["best_trial"])
    assert orchestrator("sweep", "promote", page["id"], cwd=project).code == 0
    promoted = (project / "spec.best.yaml").read_text(encoding="utf-8")
    assert "# what we search" in promoted and "eval_steps: 4" in promoted
    plan = orchestrator("plan", "spec.best.yaml", "--json", cwd=project).json
    assert plan["run"] == best.json["id"]


def kill_while_training(project: Path) -> None:
    """Start a sweep, wait for its first training step, and kill -9 it."""
    environment = process.child_environment({})
    sweep = subprocess.Popen([sys.executable, "-m", "orchestrator", "sweep", "-q"], cwd=project, env=environment)
    try:
        until(lambda: any((project / "runs").glob("*/train/trainer_log.jsonl")) or sweep.poll() is not None)
    finally:
        os.kill(sweep.pid, signal.SIGKILL)
        assert sweep.wait() == -signal.SIGKILL


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def processes_in(folder: Path) -> list[str]:
    """The commands that work in a folder or below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve().is_relative_to(folder) and (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return found
