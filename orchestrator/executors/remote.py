"""What jobs on other machines have in common, and which executor a spec means."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import Interrupted, MissingError, OrchestratorError, Pruned
from orchestrator.executors import Executor, Job
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


def required(package: str, extra: str) -> Any:
    """A package that is installed only where it is wanted. Raises MissingError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingError(
            f"executor {extra} needs the package {package}: {error}",
            f"pip install '.[{extra}]' in the orchestrator's folder, then try again.",
        ) from None


def outcome(job: Job, env: Mapping[str, str]) -> OrchestratorError | None:
    """Do a job here to its end; what goes wrong on purpose is returned, for exceptions change on their way."""
    try:
        job(env, lambda: None)
    except (Interrupted, Pruned):
        raise
    except OrchestratorError as error:
        return error
    return None
