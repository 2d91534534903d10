"""Jobs on a Ray cluster: one task each, with its share of GPUs and cores; Ray runs those of a lost node again."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from orchestrator.executors.base import Handle, Job, Wanted, outcome, required
from orchestrator.lib.errors import MissingError, OrchestratorError, StageError
from orchestrator.lib.section import Section
from orchestrator.machine import environment

if TYPE_CHECKING:
    from concurrent.futures import Future

RETRIES = 5
"""How often a job starts anew after its node was lost; it goes on from its checkpoint."""
CONNECT_SECONDS = 10.0
COUNT_SECONDS = 5.0
"""How often the nodes are counted anew: some join, some are lost."""
PASSED_ON = ("ORCHESTRATOR_", "HF_", "MODELSCOPE_", "LLAMA_CPP_DIR")
"""Variables of ours that hold there too; what else a node needs, its Ray was started with."""


class Ray(Section):
    """What a trial, or a `run --on ray`, takes of a Ray cluster."""

    address: str | None = Field(
        None, description="The cluster's address; by default RAY_ADDRESS, else the one of this machine."
    )
    num_gpus: Annotated[float, Field(ge=0)] | None = Field(
        None, description="GPUs; by default 1 where the cluster has any, else 0."
    )
    num_cpus: Annotated[int, Field(ge=1)] = Field(4, description="CPU cores.")


def create(wanted: Wanted) -> RayExecutor:
    """The cluster that a section names. Raises MissingError where it cannot be reached, or has no room for a job."""
    return RayExecutor(wanted.options or Ray(), wanted.parallel)


class RayExecutor:
    """A place for as many jobs as the spec says, or as the cluster has room for."""

    def __init__(self, wanted: Ray, parallel: int | Literal["auto"]) -> None:
        self._ray = required("ray", "ray")
        connect(self._ray, wanted.address)
        gpus = wanted.num_gpus
        if gpus is None:
            gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        self._share = {"CPU": float(wanted.num_cpus), "GPU": float(gpus)}
        self._parallel = parallel
        self._room, self._count_next = 0, 0.0
        self._require_room()

    @property
    def capacity(self) -> int:
        """How many jobs it works on at the same time."""
        return self._parallel if self._parallel != "auto" else max(1, self._places())

    def submit(self, job: Job) -> Handle:
        """Give a job to the cluster."""
        cores = int(self._share["CPU"])
        variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        task = self._ray.remote(_there).options(
            name="orchestrator", num_cpus=cores, num_gpus=self._share["GPU"], max_retries=RETRIES
        )
        reference = task.remote(job, {"OMP_NUM_THREADS": str(cores)}, variables)
        return RayHandle(self._ray, reference, reference.future())

    def _places(self) -> int:
        """How many jobs fit on the nodes that are alive."""
        if time.monotonic() >= self._count_next:
            self._count_next = time.monotonic() + COUNT_SECONDS
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._room = sum(min(int(node.get(kind, 0) // n) for kind, n in self._share.items() if n) for node in nodes)
        return self._room

    def _require_room(self) -> None:
        if self._places() == 0:
            has = {kind: self._ray.cluster_resources().get(kind, 0) for kind in self._share}
            asked = " and ".join(f"{n:g} {kind}" for kind, n in self._share.items() if n)
            raise MissingError(
                f"no node of the Ray cluster has {asked}; all together have {has['CPU']:g} CPU and {has['GPU']:g} GPU",
                "Lower sweep.ray.num_cpus or sweep.ray.num_gpus, or add nodes with `ray start`.",
            )


@dataclass(slots=True)
class RayHandle:
    """A task of Ray."""

    ray: Any
    reference: Any
    future: Future[OrchestratorError | None]
    reason: BaseException | None = None
    """Why it was cancelled."""

    @property
    def id(self) -> Mapping[str, str]:
        """What Ray calls it."""
        return {"name": "ray", "job": self.reference.task_id().hex()}

    def done(self) -> bool:
        """Whether it is over; not while it runs or waits for room."""
        return self.future.done()

    def exception(self) -> BaseException | None:
        """What it raised."""
        return self.reason or _error(self.future)

    def cancel(self, reason: BaseException) -> None:
        """Interrupt it, which ends its processes, or take it out of the queue."""
        self.reason = reason
        self.ray.cancel(self.reference)


def connect(ray: Any, address: str | None) -> None:
    """Join a cluster, unless this process has. Raises MissingError where there is none."""
    if ray.is_initialized():
        return
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    ours = signal.getsignal(signal.SIGTERM)
    try:
        _require_listener(where)
        ray.init(address=where, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise MissingError(
            f"no Ray cluster at {where!r}: {str(error).partition(chr(10))[0]}",
            "Start one with `ray start --head`, and name it in sweep.ray.address or RAY_ADDRESS.",
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # Ray's own handler would leave without ending what runs


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens at `HOST:PORT`: Ray itself would try again for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _there(job: Job, env: Mapping[str, str], variables: Mapping[str, str]) -> OrchestratorError | None:
    """What runs on a node."""
    import ray

    os.environ.update(variables)
    os.environ[environment.SCHEDULERS["ray"]] = ray.get_runtime_context().get_task_id()
    return outcome(job, env)


def _error(future: Future[OrchestratorError | None]) -> BaseException | None:
    try:
        return future.result()
    except Exception as error:  # of Ray's many kinds: a lost node, a worker that died, a package that a node lacks
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        return StageError(
            f"the Ray task ended with {type(error).__name__}: {lines[-1].strip()}", "See `ray list tasks`."
        )
