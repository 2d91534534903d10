"""Ctrl-C and kill in the middle of a training: nothing is left running, and the next call goes on from a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import make_project, run_tool

pytestmark = pytest.mark.slow


def start(project: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "train"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_for_checkpoint(project: Path, tool: subprocess.Popen[bytes]) -> Path:
    """The first checkpoint that is whole."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and tool.poll() is None:
        if found := list(project.glob("runs/*/train/checkpoint-*/trainer_state.json")):
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint; the tool ended with {tool.poll()}")


def record(project: Path) -> dict[str, Any]:
    return json.loads(next(project.glob("runs/*/run.json")).read_text())


def working_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working folder lies below `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_training_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_model: Path, number: signal.Signals
) -> None:
    project = make_project(tmp_path, tiny_model)
    spec = project / "spec.yaml"
    spec.write_text(spec.read_text().replace("num_train_epochs: 6", "num_train_epochs: 12"))
    tool = start(project)
    wait_for_checkpoint(project, tool)
    os.kill(tool.pid, number)
    _, stderr = tool.communicate(timeout=60)

    deadline = time.monotonic() + 20
    while (left := working_in(project / "runs")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    if number != signal.SIGKILL:
        assert tool.returncode == 130 and b"Run the same command again" in stderr
        assert record(project)["status"] == record(project)["stages"]["train"]["status"] == "interrupted"

    again = run_tool(("train", "--json"), project)
    assert again.code == 0, again.stderr
    train = again.json["stages"]["train"]
    assert any(argument.startswith("resume_from_checkpoint=train/checkpoint-") for argument in train["argv"])
    assert len(list((project / "runs").glob("*/run.json"))) == 1
    state = json.loads(next(project.glob("runs/*/train/trainer_state.json")).read_text())
    assert state["global_step"] == state["max_steps"] == 72
    logged = [entry["step"] for entry in state["log_history"] if "loss" in entry]
    assert logged == sorted(set(logged)) and logged[0] == 1


def test_a_checkpoint_cut_in_half_is_not_believed(tmp_path: Path) -> None:
    from orchestrator.pipeline.stage_process import newest_checkpoint

    (tmp_path / "checkpoint-5-copy").mkdir()
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_st'), (15, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5", "checkpoint-5-copy"]
