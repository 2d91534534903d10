"""Jobs on a Slurm cluster, through submitit: one batch job each, queued again when its time is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from orchestrator.executors.base import Handle, Job, Wanted, outcome, required
from orchestrator.lib import process
from orchestrator.lib.errors import InputError, Interrupted, MissingError, OrchestratorError, StageError
from orchestrator.lib.section import Section

ASK_SECONDS = 2.0
"""How often the scheduler is asked for the states of all jobs, with one question."""
RESULT_SECONDS = 60.0
"""How long a result may be missing after its job has ended: an NFS client sees a new file late (acdirmax)."""
QUEUED = 100
"""Jobs of one sweep in Slurm's queue at the same time, unless the spec says how many."""
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", "FINISHED", "INTERRUPTED"),  # the last two are of submitit's local executor
}


class Slurm(Section):
    """What a trial, or a `run --on slurm`, asks of Slurm; what is not said is left to the cluster's defaults."""

    partition: str | None = Field(None, description="The partition; SBATCH_PARTITION overrides it.")
    account: str | None = Field(None, description="Who pays; SBATCH_ACCOUNT overrides it.")
    gpus: Annotated[int, Field(ge=0)] = Field(1, description="GPUs.")
    cpus: Annotated[int, Field(ge=1)] = Field(4, description="CPU cores.")
    memory: Annotated[float, Field(gt=0)] | None = Field(None, description="Main memory in GB.")
    time: Annotated[int, Field(ge=1)] = Field(
        60, description="Minutes until the job has to make room; it is queued again and goes on from its checkpoint."
    )
    requeues: Annotated[int, Field(ge=0)] = Field(10, description="How often it is queued again for want of time.")
    options: dict[str, str | int | bool] = Field(
        default_factory=dict, description="More options of `sbatch`, such as `{qos: low, constraint: a100}`."
    )


def create(wanted: Wanted) -> SlurmExecutor:
    """The cluster of this login node. Raises MissingError where there is none."""
    parallel = QUEUED if wanted.parallel == "auto" else wanted.parallel
    return SlurmExecutor(wanted.folder, wanted.options or Slurm(), parallel)


class SlurmExecutor:
    """A place for so many jobs at a time, those in the queue included. `folder` is on a disk that all nodes share."""

    def __init__(self, folder: Path, wanted: Slurm, capacity: int, cluster: str = "slurm") -> None:
        self._submitit = required("submitit", "slurm")
        try:
            self._executor = self._submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=wanted.requeues)
        except RuntimeError as error:
            raise MissingError(f"no Slurm here: {error}", "Start it on a login node of the cluster.") from None
        self._executor.update_parameters(**parameters(wanted))
        self.capacity = capacity
        self.cluster: str = self._executor.cluster
        self._cores = wanted.cpus
        self._open: list[SlurmHandle] = []
        self._ask_next = 0.0

    def submit(self, job: Job) -> Handle:
        """Give a job to the queue. Raises InputError where Slurm refuses it."""
        order = Order(job, {"OMP_NUM_THREADS": str(self._cores)})
        try:
            submitted = self._executor.submit(order)
        except (RuntimeError, OSError) as error:
            lines = str(error).strip().splitlines() or [repr(error)]
            raise InputError(f"sbatch refuses the job: {lines[-1]}", "Fix sweep.slurm; see `sinfo`.") from None
        handle = SlurmHandle(self, submitted)
        self._open.append(handle)
        return handle

    def ask(self) -> None:
        """Renew the states of all jobs that are not over, if they have grown old. One that Slurm forgot is over."""
        if time.monotonic() < self._ask_next:
            return
        self._ask_next = time.monotonic() + ASK_SECONDS
        self._open = [handle for handle in self._open if not handle.over]
        if self.cluster == "slurm":
            states = queue()
        else:
            states = {str(handle.job.job_id): handle.job.state for handle in self._open}
        if states is not None:
            for handle in self._open:
                handle.state = states.get(str(handle.job.job_id), "COMPLETED")


@dataclass(slots=True, eq=False)
class SlurmHandle:
    """A batch job."""

    executor: SlurmExecutor
    job: Any
    state: str = "PENDING"
    reason: BaseException | None = None
    """Why it was cancelled."""
    over: bool = False
    error: BaseException | None = None
    missing_since: float = 0.0

    @property
    def id(self) -> Mapping[str, str]:
        """What Slurm calls it."""
        return {"name": "slurm", "job": str(self.job.job_id)}

    def done(self) -> bool:
        """Whether it is over; not while it runs, waits in the queue, or its result is on its way."""
        if not self.over:
            self.executor.ask()
            if self.state in ENDED:
                self._collect()
            else:
                self.missing_since = 0.0  # queued again: what it has not left yet is due after its next end only
        return self.over

    def exception(self) -> BaseException | None:
        """What it raised."""
        return self.error

    def cancel(self, reason: BaseException) -> None:
        """Take it out of the queue, or have Slurm end its processes."""
        self.reason = reason
        self.job.cancel(check=False)

    def _collect(self) -> None:
        """Read what it left, unless that may still be on its way."""
        if self.reason is not None:
            return self._end(self.reason)
        import pickle  # nosec B403

        paths = self.job.paths
        try:  # our own job wrote it, into a folder of ours
            kind, value = pickle.loads(paths.result_pickle.read_bytes())  # nosec B301
        except FileNotFoundError:
            self.missing_since = self.missing_since or time.monotonic()
            os.listdir(paths.folder)  # noqa: PTH208 - has NFS look again
            if time.monotonic() >= self.missing_since + RESULT_SECONDS:
                self._end(self._failure(f"ended as {self.state} without a result"))
            return None
        return self._end(value if kind == "success" else self._failure(str(value).strip().splitlines()[-1]))

    def _end(self, error: BaseException | None) -> None:
        self.over, self.error = True, error

    def _failure(self, what: str) -> StageError:
        return StageError(f"{self.executor.cluster} job {self.job.job_id}: {what}", f"Read {self.job.paths.stderr}.")


@dataclass(frozen=True, slots=True)
class Order:
    """What a node is given. submitit calls `checkpoint` when the time is up, and queues again what it returns."""

    job: Job
    env: Mapping[str, str]

    def __call__(self) -> OrchestratorError | None:
        signal.signal(signal.SIGTERM, _interrupt)  # submitit ignores what scancel sends
        return outcome(self.job, self.env)

    def checkpoint(self) -> Any:
        """The same again: the run's folder knows how far it went."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    __submitit_checkpoint__ = checkpoint  # its name in later versions


def _interrupt(number: int, frame: Any) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def parameters(wanted: Slurm) -> dict[str, Any]:
    """A spec's section as submitit's parameters."""
    return {
        "name": "orchestrator",
        "timeout_min": wanted.time,
        "gpus_per_node": wanted.gpus or None,
        "cpus_per_task": wanted.cpus,
        "mem_gb": wanted.memory,
        "slurm_partition": wanted.partition,
        "slurm_account": wanted.account,
        "slurm_additional_parameters": dict(wanted.options) or None,
        "slurm_srun_args": [f"--cpus-per-task={wanted.cpus}"],  # since Slurm 22.05 srun does not take sbatch's
    }


def queue(*options: str) -> dict[str, str] | None:
    """Job → state of our jobs, those that ended lately included; None while the scheduler does not answer."""
    asked = options or ("--me",)
    try:
        text = process.output(["squeue", *asked, "--noheader", "--states=all", "--format=%i %T"])
    except (OSError, process.Failed):
        return None
    return dict(line.split() for line in text.splitlines() if line.strip())


def state(job: str) -> str:
    """What Slurm says of a job now, in its own word, or '' where nobody knows it any more."""
    if found := (queue(f"--jobs={job}") or {}).get(job):
        return found
    try:
        lines = process.output(["sacct", "-X", "-n", "-j", job, "-o", "State"]).split()
    except (OSError, process.Failed):  # no accounting on this cluster
        return ""
    return lines[0] if lines else ""
