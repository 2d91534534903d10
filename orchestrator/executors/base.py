"""Where the trials of a sweep run: anything with these four calls.

What jobs on other machines have in common.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.lib.errors import Interrupted, MissingError, OrchestratorError, Pruned

Job = Callable[[Mapping[str, str], Callable[[], None]], None]
"""What is to be done, in the environment it is given; it calls its second argument often, which raises once the job
is cancelled. A job writes its result to disk, and can be pickled for an executor on other machines, where nothing calls
it off but a signal."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over; `error` is what it raised, or None."""

    error: BaseException | None


class Executor(Protocol):
    """A place for jobs."""

    @property
    def capacity(self) -> int:
        """How many jobs it works on at the same time."""

    def submit(self, job: Job) -> int:
        """Start a job; at most `capacity` of them are submitted and not yet ended. Returns a handle for it."""

    def poll(self, handle: int) -> Ended | None:
        """How a job ended, or None while it runs. Each end is told once."""

    def cancel(self, handle: int, reason: BaseException) -> None:
        """Make a job raise this within moments. Its end is told by `poll`, as any other."""

    def ticket(self, handle: int) -> Mapping[str, str] | None:
        """`{name, job}`: a scheduler and what it calls a job that has not ended; None where there is no scheduler."""


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
