"""A day's worth of stages that do nothing, in one process: nothing grows, and nothing is left behind."""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from orchestrator.executors import warm
from orchestrator.executors.warm import WarmLauncher
from orchestrator.lib import process
from orchestrator.lib.files import HashCache
from orchestrator.lib.step import Step
from orchestrator.pipeline.plan import Plan
from orchestrator.pipeline.scheduler import Scheduler
from orchestrator.pipeline.stage_process import Starter, start
from orchestrator.runs import store
from orchestrator.runs.reuse import Planned
from orchestrator.spec.sections import Spec

STAGES = 50
"""In each run."""
GROWTH = 8 << 20
"""Bytes of memory that may be the allocator's; 10,000 stages that each kept a kilobyte would need more."""


class Nobody:
    """A watcher that looks away."""

    def starts(self, step: Step, folder: Path) -> None: ...

    def tick(self) -> None: ...

    def ends(self, step: Step, status: str, seconds: float) -> None: ...


@pytest.fixture
def launch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Starter:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.002)
    monkeypatch.setattr(warm, "PRELOAD", "orchestrator.executors.warm")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "runs").mkdir()
    (tmp_path / "nothing.py").touch()
    return start if request.param == "plain" else WarmLauncher()


def plan(tmp_path: Path, number: int, launch: Starter) -> Plan:
    """Stages that do nothing; no two have the same fingerprint."""
    argv = ("/bin/true",) if launch is start else (sys.executable, str(tmp_path / "nothing.py"))
    steps = [Step(f"stage-{n}", "prepare", argv, files={f"configs/{n}.yaml": "一: 1\n"}) for n in range(STAGES)]
    planned = tuple(Planned(step, f"{number}-{step.stage}", False, "new run") for step in steps)
    return Plan(Spec.model_construct(), None, planned)


def footprint() -> tuple[int, int, int]:
    """Bytes of memory, open files, threads."""
    gc.collect()
    me = psutil.Process()
    return me.memory_info().rss, me.num_fds(), me.num_threads()


@pytest.mark.parametrize(
    ("launch", "stages"),
    [
        pytest.param("plain", 300, marks=pytest.mark.slow),
        pytest.param("warm", 100, marks=pytest.mark.slow),
        pytest.param("plain", 10_000, marks=pytest.mark.nightly),
        pytest.param("warm", 10_000, marks=pytest.mark.nightly),
    ],
    indirect=["launch"],
)
def test_nothing_grows_and_nothing_is_left(tmp_path: Path, launch: Starter, stages: int) -> None:
    executor = Scheduler(tmp_path / "runs", HashCache(tmp_path / "hashes.json"), Nobody(), launch)
    rounds = stages // STAGES
    for number in range(rounds):
        run = store.create(tmp_path / "runs", "long")
        executor.carry_out(plan(tmp_path, number, launch), run)
        if number == rounds // 3:
            before = footprint()
    after = footprint()
    print(f"{stages} stages: memory {before[0]:,} → {after[0]:,} bytes, files {before[1]} → {after[1]}")
    assert after[0] - before[0] < GROWTH
    assert after[1:] == before[1:]
    finished = [run.record for run in store.every(tmp_path / "runs") if run.record["status"] == "completed"]
    assert sum(len(record["stages"]) for record in finished) == stages
    assert [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".partial"))] == []
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "nothing.py", *_forkservers(tmp_path)}


def _forkservers(folder: Path) -> set[str]:
    """The folder that multiprocessing keeps while its forkserver lives."""
    return {path.name for path in folder.glob("pymp-*")}
