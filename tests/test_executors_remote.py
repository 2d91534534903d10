"""Jobs that leave this process, without a cluster: pickled, done by submitit's local executor, cancelled, resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cloudpickle
import psutil
import pytest

from orchestrator import executors
from orchestrator.executors import slurm
from orchestrator.executors.base import Wanted, outcome, required
from orchestrator.executors.slurm import QUEUED, SlurmExecutor, SlurmHandle, parameters
from orchestrator.lib.errors import BusyError, GateError, Interrupted, MissingError, Pruned, StageError
from orchestrator.pipeline import plan
from orchestrator.pipeline.remote import JobElsewhere, TaskJob
from orchestrator.pipeline.workflow import Task, assign
from orchestrator.runs.locks import locked
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Slurm, Sweep
from tests import cluster_jobs
from tests.cluster_jobs import HANG_ONCE, Scripted, Silence, error_of, hanging, is_gone, newest, starts, submit, until


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return cluster_jobs.make_project(tmp_path, monkeypatch)


def place(project: Path, capacity: int = 2) -> SlurmExecutor:
    return SlurmExecutor(project / "runs/.jobs", Slurm(gpus=0, cpus=1, time=1), capacity, cluster="local")


def task_of(project: Path) -> Task:
    return assign(load_project(project / "spec.yaml"), "train")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, {"timeout_min": 60, "gpus_per_node": 1, "cpus_per_task": 4, "mem_gb": None}),
        ({"gpus": 0, "time": 5}, {"timeout_min": 5, "gpus_per_node": None}),
        ({"partition": "gpu", "account": "宋"}, {"slurm_partition": "gpu", "slurm_account": "宋"}),
        ({"options": {"qos": "low"}}, {"slurm_additional_parameters": {"qos": "low"}}),
        ({"cpus": 8}, {"slurm_srun_args": ["--cpus-per-task=8"]}),
    ],
)
def test_a_section_as_submitit_takes_it(section: dict[str, Any], expected: dict[str, Any]) -> None:
    made = parameters(Slurm(**section))
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize("error", [None, StageError("训练失败", "提示"), GateError("no")])
def test_what_goes_wrong_on_purpose_is_a_result(error: Exception | None) -> None:
    def job(env: Any, check: Any) -> None:
        if error:
            raise error

    found = outcome(job, {})
    assert found is error
    travelled = cloudpickle.loads(cloudpickle.dumps(found))
    assert getattr(travelled, "hint", None) == getattr(error, "hint", None)


@pytest.mark.parametrize("error", [Interrupted("stop"), Pruned("behind"), KeyboardInterrupt(), ZeroDivisionError()])
def test_what_ends_a_job_is_raised(error: BaseException) -> None:
    def job(env: Any, check: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        outcome(job, {})


def test_a_missing_package_is_named_with_its_command() -> None:
    with pytest.raises(MissingError) as raised:
        required("no_such_package_here", "ray")
    assert "no_such_package_here" in raised.value.message
    assert "pip install '.[ray]'" in raised.value.hint


def test_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="no Slurm here"):
        executors.create("slurm", Wanted(folder=tmp_path))


@pytest.mark.parametrize(("section", "capacity"), [({}, QUEUED), ({"parallel": "auto"}, 100), ({"parallel": 7}, 7)])
def test_how_many_jobs_are_queued(
    section: dict[str, Any], capacity: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    search = Sweep.model_validate_json(json.dumps({"parameters": {"learning_rate": [1]}, **section}))
    assert executors.create("slurm", search.wanted("slurm", tmp_path)).capacity == capacity


def test_what_travels_is_the_question_and_not_the_plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)  # the runs folder is named relative to here, and elsewhere is another folder
    task = assign(load_project(Path("spec.yaml"), runs_dir=Path("runs")), "train")
    pickled = cloudpickle.dumps(TaskJob(task, "train", Scripted(project), Scripted(project)))
    monkeypatch.chdir("/")
    monkeypatch.setattr("orchestrator.machine.environment.platform.python_version", lambda: "3.elsewhere")
    job = cloudpickle.loads(pickled)
    assert isinstance(job, JobElsewhere)
    job({}, lambda: None)
    record = newest(task_of(project)).record
    assert (record["status"], record["environment"]["python"]) == ("completed", "3.elsewhere")
    job({}, lambda: None)  # as after the loss of a node that had finished: nothing is done again
    assert len(starts(project, "train")) == 1


def test_a_machine_that_would_train_something_else_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(project)
    job = cloudpickle.loads(cloudpickle.dumps(TaskJob(task, "train", Scripted(project))))
    monkeypatch.setattr(plan, "_version", lambda package: "0.0.1")
    with pytest.raises(MissingError, match="its packages or its base model are others"):
        job({}, lambda: None)


def test_a_run_that_is_taken_is_waited_for(project: Path) -> None:
    task = task_of(project)
    job = cloudpickle.loads(cloudpickle.dumps(TaskJob(task, "train", Scripted(project), Scripted(project))))
    checks = []

    def give_up() -> None:
        checks.append(1)
        raise BusyError("still")

    with locked(task.run.folder), pytest.raises(BusyError, match="still"):
        job({}, give_up)
    assert starts(project, "train") == []
    job({}, lambda: None)
    assert len(starts(project, "train")) == 1


def test_a_sweep_in_processes_of_submitit(project: Path) -> None:
    page = cluster_jobs.sweep(project, place(project), 3)
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 3
    assert len(starts(project, "prepare")) == 1
    assert len(starts(project, "train")) == 3


def test_a_failed_job_says_why(project: Path) -> None:
    here = place(project)
    _, handle = submit(project, here, "echo 'ValueError: 坏了' >&2; exit 3")
    error = error_of(handle)
    assert isinstance(error, StageError)
    assert error.message == "train ended with exit code 3: ValueError: 坏了"


def test_a_cancelled_job_is_gone_with_its_processes(project: Path) -> None:
    here = place(project)
    _, handle = submit(project, here, "sleep 3600")
    (pid,) = until(lambda: starts(project, "train"))
    reason = Pruned("behind the others")
    handle.cancel(reason)
    assert error_of(handle) is reason
    until(lambda: is_gone(pid), 5)


def test_a_job_whose_time_is_up_goes_on_from_its_checkpoint(project: Path) -> None:
    here = place(project)
    task, handle = submit(project, here, HANG_ONCE)
    first = until(lambda: hanging(project))
    assert handle.id
    (python,) = psutil.Process(int(handle.id["job"])).children()
    python.send_signal(signal.SIGUSR2)  # what Slurm sends ahead of the end
    assert error_of(handle) is None
    assert len(starts(project, "prepare")) == 1
    assert len(starts(project, "train")) == 2
    assert is_gone(first)
    assert "resume_from_checkpoint=train/checkpoint-5" in newest(task).stage("train")["argv"]


def test_a_job_that_is_queued_again_has_all_its_time_to_leave_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = SimpleNamespace(result_pickle=tmp_path / "none.pkl", folder=tmp_path, stderr=tmp_path / "err")
    handle = SlurmHandle(cast("Any", SimpleNamespace(ask=lambda: None)), SimpleNamespace(job_id=7, paths=paths))
    clock = iter((100.0, 100.0, 5000.0, 5000.0))
    monkeypatch.setattr(slurm.time, "monotonic", lambda: next(clock))
    for state in ("PREEMPTED", "RUNNING", "COMPLETED"):
        handle.state = state
        assert not handle.done()


def test_a_run_is_followed_to_its_end(project: Path) -> None:
    seen: list[tuple[str, str]] = []

    class Reporter(Silence):
        def starts(self, step: Any, *_: object) -> None:
            seen.append((step.stage, "starts"))

        def ends(self, step: Any, status: str, *_: object) -> None:  # type: ignore[override]
            seen.append((step.stage, status))

    following = cluster_jobs.follow(project, place(project))
    assert following.job.startswith("slurm job ")
    assert following.until_end(Reporter()).record["status"] == "completed"
    assert seen == [("prepare", "starts"), ("prepare", "completed"), ("train", "starts"), ("train", "completed")]
