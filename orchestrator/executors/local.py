"""Jobs on this machine, each in a thread that watches its processes and with its share of the devices."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Literal

from orchestrator.executors.base import Ended, Job

CORES_PER_TRIAL = 4
"""On a CPU, `auto` gives each trial so many cores; more of them would speed a small model up but little."""
AT_LEAST = 2
"""Trials at a time under `auto` wherever there are as many cores: two trainings with one thread each took 0.85, and two
predictions 0.78, of the time of one after the other with two threads."""


class LocalExecutor:
    """As many jobs at a time as there are slots; a slot is the environment that its jobs get."""

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.capacity = len(slots)
        self._free = list(slots)
        self._numbers = count()
        self._running: dict[int, _Running] = {}

    def submit(self, job: Job) -> int:
        """Start a job in the next free slot."""
        handle, switch, slot = next(self._numbers), _Switch(), self._free.pop(0)
        future: Future[None] = Future()
        self._running[handle] = _Running(future, switch, slot)
        # Linux ends a child with the thread that started it, so each job keeps one thread from beginning to end.
        threading.Thread(target=_run, args=(future, job, slot, switch), name=f"trial {handle}", daemon=True).start()
        return handle

    def poll(self, handle: int) -> Ended | None:
        """How a job ended, or None while it runs."""
        running = self._running[handle]
        if not running.future.done():
            return None
        del self._running[handle]
        self._free.append(running.slot)
        return Ended(running.future.exception())

    def cancel(self, handle: int, reason: BaseException) -> None:
        """Make a job raise this at its next check."""
        self._running[handle].switch.reason = reason

    def ticket(self, handle: int) -> None:
        """Nothing: there is no scheduler here."""


class _Switch:
    """Set from one thread, felt in another."""

    reason: BaseException | None = None

    def check(self) -> None:
        if self.reason is not None:
            raise self.reason


def _run(future: Future[None], job: Job, slot: Mapping[str, str], switch: _Switch) -> None:
    try:
        job(slot, switch.check)
        future.set_result(None)
    except BaseException as error:
        future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Running:
    future: Future[None]
    switch: _Switch
    slot: Mapping[str, str]


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


def visible(count: int, setting: str | None) -> list[str]:
    """The names of the GPUs that may be used: those of CUDA_VISIBLE_DEVICES, else all."""
    if setting is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in setting.split(",") if name.strip() not in ("", "-1")] if count else []
