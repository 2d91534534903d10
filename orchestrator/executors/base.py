"""Where jobs run: what an executor is asked, and what it answers. Shaped as submitit and concurrent.futures are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.lib.errors import Interrupted, MissingError, OrchestratorError, Pruned

Job = Callable[[Mapping[str, str], Callable[[], None]], None]
"""What is to be done, in the environment it is given; it calls its second argument often, which raises once the job
is cancelled. A job writes its result to disk, and can be pickled for an executor on other machines, where nothing calls
it off but a signal."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a spec asks of an executor."""

    parallel: int | Literal["auto"] = "auto"
    """Jobs at the same time."""
    options: Any = None
    """The executor's own section of the spec; None where there is none."""
    folder: Path = Path()
    """For its files; on a disk that all machines share."""
    processes: int = 1
    """How many each job starts, each of which wants a device."""


class Handle(Protocol):
    """A job that was submitted."""

    @property
    def id(self) -> Mapping[str, str] | None:
        """`{name, job}`: a scheduler and what it calls the job; None where there is no scheduler."""

    def done(self) -> bool:
        """Whether it is over."""

    def exception(self) -> BaseException | None:
        """What a job that is over raised, or None."""

    def cancel(self, reason: BaseException) -> None:
        """Make it raise this within moments; it is over only when `done` says so."""


class Executor(Protocol):
    """A place for jobs."""

    @property
    def capacity(self) -> int:
        """How many jobs it works on at the same time."""

    def submit(self, job: Job) -> Handle:
        """Start a job; at most `capacity` of them are submitted and not yet over."""


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
