"""Jobs on a Slurm cluster, through submitit: one batch job each, queued again when its time is up."""

from __future__ import annotations

import os
import pickle  # nosec B403
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.executors.base import Ended, Job, outcome, required
from orchestrator.lib import process
from orchestrator.lib.errors import InputError, Interrupted, MissingError, OrchestratorError, StageError
from orchestrator.spec.sections import Slurm

ASK_SECONDS = 2.0
"""How often the scheduler is asked for the states of all jobs, with one question."""
RESULT_SECONDS = 60.0
"""How long a result may be missing after its job has ended: an NFS client sees a new file late (acdirmax)."""
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", "FINISHED", "INTERRUPTED"),  # the last two are of submitit's local executor
}


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
        self._cores = wanted.cpus
        self._running: dict[int, _Running] = {}
        self._ask_next = 0.0

    def submit(self, job: Job) -> int:
        """Give a job to the queue. Raises InputError where Slurm refuses it."""
        order = Order(job, {"OMP_NUM_THREADS": str(self._cores)})
        try:
            submitted = self._executor.submit(order)
        except (RuntimeError, OSError) as error:
            lines = str(error).strip().splitlines() or [repr(error)]
            raise InputError(f"sbatch refuses the job: {lines[-1]}", "Mend sweep.slurm; see `sinfo`.") from None
        handle = int(submitted.job_id)
        self._running[handle] = _Running(submitted)
        return handle

    def poll(self, handle: int) -> Ended | None:
        """How a job ended, or None while it runs or waits in the queue."""
        self._ask()
        running = self._running[handle]
        if running.state not in ENDED:
            return None
        ended = Ended(running.reason) if running.reason else self._result(running)
        if ended is not None:
            del self._running[handle]
        return ended

    def cancel(self, handle: int, reason: BaseException) -> None:
        """Take a job out of the queue, or have Slurm end its processes."""
        self._running[handle].reason = reason
        self._running[handle].job.cancel(check=False)

    def ticket(self, handle: int) -> Mapping[str, str]:
        """What Slurm calls a job."""
        return {"name": "slurm", "job": str(handle)}

    def _ask(self) -> None:
        """Renew the states of all jobs, if they have grown old. One that Slurm has forgotten has ended."""
        if time.monotonic() < self._ask_next:
            return
        self._ask_next = time.monotonic() + ASK_SECONDS
        if self._executor.cluster == "slurm":
            states = queue()
        else:
            states = {str(handle): running.job.state for handle, running in self._running.items()}
        if states is not None:
            for handle, running in self._running.items():
                running.state = states.get(str(handle), "COMPLETED")

    def _result(self, running: _Running) -> Ended | None:
        """What a job that is over left; None while that may still be on its way."""
        paths = running.job.paths
        try:  # our own job wrote it, into a folder of ours
            kind, value = pickle.loads(paths.result_pickle.read_bytes())  # nosec B301
        except FileNotFoundError:
            running.missing_since = running.missing_since or time.monotonic()
            os.listdir(paths.folder)  # noqa: PTH208 - has NFS look again
            if time.monotonic() < running.missing_since + RESULT_SECONDS:
                return None
            return Ended(self._failure(running, f"ended as {running.state} without a result"))
        if kind == "success":
            return Ended(value)
        return Ended(self._failure(running, str(value).strip().splitlines()[-1]))

    def _failure(self, running: _Running, what: str) -> StageError:
        return StageError(
            f"{self._executor.cluster} job {running.job.job_id}: {what}", f"Read {running.job.paths.stderr}."
        )


@dataclass(slots=True)
class _Running:
    job: Any
    state: str = "PENDING"
    reason: BaseException | None = None
    """Why it was cancelled."""
    missing_since: float = 0.0


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
