"""Jobs of a real Slurm in one box: a sweep, one that is cancelled, one whose time is up, and what `runs show` says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.executors.slurm import SlurmExecutor, state
from orchestrator.lib.errors import InputError, Pruned
from orchestrator.runs import store
from orchestrator.spec.sections import Slurm
from tests import cluster_jobs, one_box_slurm
from tests.cluster_jobs import HANG_ONCE, Silence, error_of, hanging, is_gone, newest, starts, submit, until
from tests.conftest import make_project, run_tool

pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")
if reason := one_box_slurm.missing():
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with one_box_slurm.running(tmp_path_factory.mktemp("slurm")) as config:
        yield config


@pytest.fixture
def project(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURM_CONF", str(slurm))
    return cluster_jobs.make_project(tmp_path, monkeypatch)


def place(project: Path, **more: Any) -> SlurmExecutor:
    return SlurmExecutor(project / "runs/.jobs", Slurm(gpus=0, cpus=1, time=5, **more), capacity=3)


def test_a_sweep_in_batch_jobs(project: Path) -> None:
    page = cluster_jobs.sweep(project, place(project), 3)
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 3
    assert len(starts(project, "prepare")) == 1
    jobs = [store.load(project / "runs" / trial["run"]).record["scheduler"] for trial in page["trials"]]
    assert [job["name"] for job in jobs] == ["slurm"] * 3
    assert len({job["job"] for job in jobs}) == 3


def test_what_slurm_refuses_is_said(project: Path) -> None:
    with pytest.raises(InputError, match=r"sbatch refuses the job: .*partition"):
        submit(project, place(project, partition="nowhere"), "")


def test_a_cancelled_job_is_gone_with_its_processes(project: Path) -> None:
    here = place(project)
    task, handle = submit(project, here, "sleep 3600")
    (pid,) = until(lambda: starts(project, "train"))
    assert handle.id and newest(task).record["scheduler"]["job"] == handle.id["job"]
    assert state(handle.id["job"]) == "RUNNING"
    reason = Pruned("behind the others")
    handle.cancel(reason)
    until(lambda: is_gone(pid), 10)
    assert error_of(handle) is reason
    assert state(handle.id["job"]) == "CANCELLED"


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(project: Path) -> None:
    following = cluster_jobs.follow(project, place(project), HANG_ONCE)
    first = until(lambda: hanging(project))
    assert following.handle and following.handle.id
    job = following.handle.id["job"]
    subprocess.run(["scancel", job, "--signal=USR2"], check=True)  # what Slurm sends ahead of the end
    run = following.until_end(Silence())
    assert run.record["status"] == "completed" and run.record["scheduler"]["job"] == job
    assert len(starts(project, "prepare")) == 1
    assert len(starts(project, "train")) == 2
    assert is_gone(first)
    assert "resume_from_checkpoint=train/checkpoint-5" in run.stage("train")["argv"]


SWEEP = """\
sweep: {parameters: {learning_rate: [2.0e-2]}, executor: slurm, slurm: {gpus: 0, cpus: 1, time: 10}}
"""


@pytest.mark.slow
def test_a_real_training_from_the_command_line(slurm: Path, tiny_model: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path, tiny_model)
    with (project / "spec.yaml").open("a", encoding="utf-8") as spec:
        spec.write(SWEEP)
    environment = {"SLURM_CONF": str(slurm)}
    done = run_tool(("train", "--on", "slurm", "--json"), project, environment)
    assert done.code == 0, done.stderr
    run = store.load(project / "runs" / done.json["id"])
    assert run.stage("train")["status"] == "completed"
    job = run.record["scheduler"]["job"]
    assert f"slurm job {job}: " in done.stderr and "✓ train" in done.stderr
    shown = run_tool(("runs", "show"), project, environment).stdout
    assert f"slurm job {job} on {run.record['scheduler']['host']}: COMPLETED" in shown
