"""Trials on a real Ray cluster of two nodes, one of which is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.executors.ray import RayExecutor
from orchestrator.lib.errors import MissingError, Pruned, StageError
from orchestrator.runs import store
from orchestrator.spec.sections import Ray
from tests import cluster_jobs
from tests.cluster_jobs import HANG_ONCE, Silence, error_of, hanging, is_gone, newest, starts, submit, until

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
CORES = 2
MEMORY = 80 * 2**20


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return cluster_jobs.make_project(tmp_path, monkeypatch)


@pytest.fixture
def cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that takes no jobs and two nodes, which inherit the environment that the project has set."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_agent_register_timeout_ms", "120000")  # a busy machine starts Ray's many processes slowly
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    try:
        made.nodes = [made.add_node(num_cpus=CORES, object_store_memory=MEMORY) for _ in range(2)]
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def place(cluster: Any, cores: int = 1) -> RayExecutor:
    return RayExecutor(Ray(address=cluster.address, num_cpus=cores), "auto")


def test_without_a_cluster_or_without_room(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError) as raised:
        place(cluster, cores=3)
    assert "no node of the Ray cluster has 3 CPU; all together have 4 CPU and 0 GPU" in raised.value.message
    ray.shutdown()
    with pytest.raises(MissingError) as raised:
        RayExecutor(Ray(address="127.0.0.1:1"), "auto")
    assert "no Ray cluster at '127.0.0.1:1'" in raised.value.message


def test_jobs_end_fail_and_are_cancelled(project: Path, cluster: Any) -> None:
    here = place(cluster)
    assert here.capacity == 4
    task, handle = submit(project, here, "sleep 3600")
    assert handle.id and handle.id["name"] == "ray"
    (pid,) = until(lambda: starts(project, "train"))
    reason = Pruned("behind the others")
    handle.cancel(reason)
    assert error_of(handle) is reason
    until(lambda: is_gone(pid), 5)

    task, handle = submit(project, here, "echo 'ValueError: 坏了' >&2; exit 3")
    error = error_of(handle)
    assert isinstance(error, StageError)
    assert error.message == "train ended with exit code 3: ValueError: 坏了"

    task, handle = submit(project, here, "")
    assert error_of(handle) is None
    assert newest(task).record["scheduler"]["name"] == "ray"


class Saboteur(Silence):
    """Kills the node on which a training hangs."""

    lost = 0

    def __init__(self, project: Path, cluster: Any) -> None:
        self.project, self.cluster = project, cluster

    def watch(self, *_: object) -> None:
        if not self.lost and (pid := hanging(self.project)):
            self.lost = pid
            above = {parent.pid for parent in psutil.Process(pid).parents()}
            (node,) = (node for node in self.cluster.nodes if raylet(node) in above)
            self.cluster.remove_node(node, allow_graceful=False)


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_a_sweep_survives_the_loss_of_a_node(project: Path, cluster: Any) -> None:
    saboteur = Saboteur(project, cluster)
    page = cluster_jobs.sweep(project, place(cluster, CORES), 5, HANG_ONCE, saboteur)
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 5
    assert saboteur.lost and is_gone(saboteur.lost)
    assert len(starts(project, "train")) == 6
    trained = [store.load(project / "runs" / trial["run"]).stage("train") for trial in page["trials"]]
    resumed = [entry for entry in trained if "resume_from_checkpoint=train/checkpoint-5" in entry["argv"]]
    assert len(resumed) == 1
