"""One training in two processes on the CPU (gloo): killed in every way and gone on with, it learns as one process does;
and the same on two nodes, each with a launcher of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import make_project, run_tool
from tests.integration.test_interrupt import record, working_in

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 10, 30
LAUNCH = "launch: {{devices: {devices}, global_batch_size: 8{more}}}\n"


def project_with(folder: Path, model: Path, devices: int, more: str = "", epochs: int = EPOCHS) -> Path:
    project = make_project(folder, model)
    spec = project / "spec.yaml"
    text = spec.read_text().replace("  gradient_accumulation_steps: 1\n", "  use_cpu: true\n")
    text = text.replace("num_train_epochs: 6", f"num_train_epochs: {epochs}")
    spec.write_text(text + "\n" + LAUNCH.format(devices=devices, more=more))
    return project


def start(project: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", "train", *options]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until(found: Callable[[], Any], *tools: subprocess.Popen[str]) -> Any:
    """What is looked for, once it is there; every tool must be running meanwhile."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and all(tool.poll() is None for tool in tools):
        if answer := found():
            return answer
        time.sleep(0.05)
    raise AssertionError([tool.communicate()[1] if tool.poll() is not None else "is running" for tool in tools])


def checkpoints(project: Path) -> set[Path]:
    return {file.parent for file in project.glob("runs/*/train/checkpoint-*/trainer_state.json")}


def nothing_runs_in(project: Path) -> None:
    deadline = time.monotonic() + 30
    while (left := working_in(project / "runs")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def ranks(project: Path) -> dict[str, psutil.Process]:
    """The processes that train: RANK → process."""
    found = {}
    for process in working_in(project / "runs"):
        try:
            if rank := process.environ().get("RANK"):
                found[rank] = process
        except psutil.Error:
            continue
    return found


def losses(project: Path) -> list[tuple[int, float]]:
    state = json.loads(next(project.glob("runs/*/train/trainer_state.json")).read_text())
    return [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def test_killed_twice_and_gone_on_with_two_processes_learn_as_one_does(tmp_path: Path, tiny_model: Path) -> None:
    two, one = (project_with(tmp_path / str(devices), tiny_model, devices) for devices in (2, 1))

    tool = start(two)
    first = until(lambda: checkpoints(two), tool)
    assert set(ranks(two)) == {"0", "1"}
    os.kill(tool.pid, signal.SIGKILL)
    tool.communicate()
    nothing_runs_in(two)

    tool = start(two)
    until(lambda: checkpoints(two) - first, tool)
    ranks(two)["1"].kill()
    _, said = tool.communicate(timeout=120)
    assert tool.returncode == 4 and "rank 1 was killed by signal 9" in said, said
    nothing_runs_in(two)

    done = run_tool(("train", "--json"), two)
    assert done.code == 0, done.stderr
    assert any(argument.startswith("resume_from_checkpoint=") for argument in done.json["stages"]["train"]["argv"])
    assert len(list(two.glob("runs/*/run.json"))) == 1

    alone = run_tool(("train", "--json"), one)
    assert alone.code == 0, alone.stderr
    assert alone.json["fingerprint"] == done.json["fingerprint"]
    assert [step for step, _ in losses(two)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-3)


def test_two_nodes_train_together_with_the_commands_that_the_plan_shows(tmp_path: Path, tiny_model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        more = f", nodes: 2, master: 127.0.0.1:{free.getsockname()[1]}"
    project = project_with(tmp_path, tiny_model, 1, more, epochs=2)
    step = run_tool(("plan", "--json"), project).json["steps"][1]
    assert step["launch"]["batch"] == {"effective": 8, "per_device": 4, "accumulation": 1, "devices": 1, "nodes": 2}

    tools = start(project), start(project, "--node-rank", "1")
    processes = until(lambda: len(found := ranks(project)) == 2 and found, *tools)
    for rank, command in enumerate(step["launch"]["nodes"]):
        *assigned, program, train, config = shlex.split(command)
        environment = processes[str(rank)].environ()
        assert [f"{name}={environment[name]}" for name, _, _ in (part.partition("=") for part in assigned)] == assigned
        assert (program, train, config) == ("llamafactory-cli", "train", "configs/train.yaml")
        assert environment["WORLD_SIZE"] == "2" and config in processes[str(rank)].cmdline()
    said = [tool.communicate(timeout=400)[1] for tool in tools]
    assert [tool.returncode for tool in tools] == [0, 0], said
    assert f"node 1 took part in run {record(project)['id']}" in said[1]
    assert record(project)["status"] == "completed" and [step for step, _ in losses(project)] == list(range(1, 7))
    assert next(project.glob("runs/*/logs/train-node1.log")).stat().st_size
    nothing_runs_in(project)
