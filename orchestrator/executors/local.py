"""Jobs on this machine, each in a thread that watches its processes and with its share of the devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.executors.base import Handle, Job, Wanted
from orchestrator.lib.cpu import cores
from orchestrator.machine import environment

CORES_PER_TRIAL = 4
"""On a CPU, `auto` gives each trial so many cores; more of them would speed a small model up but little."""
AT_LEAST = 2
"""Trials at a time under `auto` wherever there are as many cores: two trainings with one thread each took 0.85, and two
predictions 0.78, of the time of one after the other with two threads."""


def create(wanted: Wanted) -> LocalExecutor:
    """This machine, with its devices divided among the jobs, of which each may take several."""
    return LocalExecutor(slots(wanted.parallel, environment.visible_gpus(), cores(), wanted.processes))


class LocalExecutor:
    """As many jobs at a time as there are slots; a slot is the environment that its jobs get."""

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.capacity = len(slots)
        self._free = list(slots)

    def submit(self, job: Job) -> Handle:
        """Start a job in the next free slot."""
        slot = self._free.pop(0)
        handle = LocalHandle(lambda: self._free.append(slot))
        # Linux ends a child with the thread that started it, so each job keeps one thread from beginning to end.
        threading.Thread(target=_run, args=(handle, job, slot), name="trial", daemon=True).start()
        return handle


@dataclass(slots=True)
class LocalHandle:
    """A job in a thread."""

    release: Callable[[], None]
    """Gives its slot back."""
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    """What it raised, once it has ended."""
    reason: BaseException | None = None
    """Why it was cancelled: set in one thread, raised in another."""
    released: bool = False

    @property
    def id(self) -> None:
        """Nothing: there is no scheduler here."""

    def done(self) -> bool:
        """Whether it is over; its slot is free from the first time that this says so."""
        if self.ended.is_set() and not self.released:
            self.release()
            self.released = True
        return self.released

    def exception(self) -> BaseException | None:
        """What it raised."""
        self.ended.wait()
        return self.error

    def cancel(self, reason: BaseException) -> None:
        """Make it raise this at its next check."""
        self.reason = reason

    def check(self) -> None:
        """Called by the job."""
        if self.reason is not None:
            raise self.reason


def _run(handle: LocalHandle, job: Job, slot: Mapping[str, str]) -> None:
    try:
        job(slot, handle.check)
    except BaseException as error:
        handle.error = error
    finally:
        handle.ended.set()


def slots(parallel: int | Literal["auto"], gpus: Sequence[str], cores: int, each: int = 1) -> list[dict[str, str]]:
    """The environment of each slot: GPUs for the processes of its trials, or where there are none its share of the CPU.

    Undivided, the OpenMP threads of two trainings slow each other more than tenfold.
    """
    if gpus:
        groups = [",".join(gpus[first : first + each]) for first in range(0, max(1, len(gpus) - each + 1), each)]
        wanted = len(groups) if parallel == "auto" else parallel
        return [{"CUDA_VISIBLE_DEVICES": groups[number % len(groups)]} for number in range(wanted)]
    wanted = max(min(AT_LEAST, cores), cores // CORES_PER_TRIAL) if parallel == "auto" else parallel
    return [{"OMP_NUM_THREADS": str(max(1, cores // (wanted * each)))} for _ in range(wanted)]
