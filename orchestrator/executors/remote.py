"""What jobs on other machines have in common."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import Interrupted, MissingError, OrchestratorError, Pruned
from orchestrator.executors import Job


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
