"""How much memory a process holds at most, everything below it included."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from orchestrator.machine import environment

SECONDS = 1.0
"""How often the processes are looked at; what comes and goes in between is missed."""
GPU_SECONDS = 10.0
"""How often the GPU is asked: nvidia-smi may take a second."""


@dataclass(slots=True)
class PeakMemory:
    """The most bytes that were seen in use at once."""

    pid: int
    main: int = 0
    """Resident, of the process and its descendants; pages that they share count for each."""
    gpu: int = 0
    """In use on the fullest GPU, by whomever; 0 without one."""
    _next: float = field(default=0.0, init=False)
    _next_gpu: float = field(default=0.0, init=False)

    def look(self) -> None:
        """Look again, if that is due."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SECONDS
            self.main = max(self.main, resident(self.pid))
        if now >= self._next_gpu:
            self._next_gpu = now + GPU_SECONDS
            self.gpu = max([self.gpu, *(int(used * 2**30) for used, _ in environment.gpu_memory())])

    def to_json(self) -> dict[str, int]:
        """`main` and `gpu` in bytes, as far as they were seen."""
        return {name: size for name, size in (("main", self.main), ("gpu", self.gpu)) if size}


def resident(pid: int) -> int:
    """Bytes of main memory that a process and its descendants hold now; 0 for one that is gone."""
    import psutil

    held = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                held += int(one.memory_info().rss)
    return held
