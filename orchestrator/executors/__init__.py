"""Which executor for a cluster a spec means."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from orchestrator.executors.base import Executor
from orchestrator.spec.sections import Ray, Slurm, Sweep

QUEUED = 100
"""Jobs of one sweep in Slurm's queue at the same time, unless the spec says how many."""


def executor(name: Literal["ray", "slurm"], sweep: Sweep | None, folder: Path) -> Executor:
    """The executor of a cluster as a `sweep:` section describes it; `folder`, on the shared disk, is for its files.

    Raises MissingError where its package is not installed or the cluster cannot be reached.
    """
    parallel = sweep.parallel if sweep and "parallel" in sweep.model_fields_set else "auto"
    if name == "ray":
        from orchestrator.executors.ray import RayExecutor

        return RayExecutor(sweep.ray if sweep else Ray(), parallel)
    from orchestrator.executors.slurm import SlurmExecutor

    return SlurmExecutor(folder, sweep.slurm if sweep else Slurm(), QUEUED if parallel == "auto" else parallel)
