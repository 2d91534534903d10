"""Run two ways of doing the same in turns, and keep medians and ratios: machines differ, ratios much less."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from orchestrator.lib import process
from orchestrator.lib.cpu import cores

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
ORCHESTRATOR = str(PROGRAMS / "orchestrator")
LLAMAFACTORY = str(PROGRAMS / "llamafactory-cli")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a command."""

    seconds: float
    own_mib: float = 0.0
    """Peak resident memory of the command's own process."""
    tree_mib: float = 0.0
    """Peak of it and all it started, shared pages counted once (PSS)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `value` is what the target speaks of: a ratio to the bare tools, or seconds, or MB."""

    name: str
    what: str
    value: float
    target: str
    reached: bool
    ours: Sequence[float] = ()
    bare: Sequence[float] = ()
    note: str = ""


@dataclass(slots=True)
class Bench:
    """What every benchmark is given."""

    work: Path
    repeats: int
    sets: tuple[str, ...] = ()
    """Settings of every job, such as another base model."""
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a line and show it at once, since the next one may take minutes."""
        self.rows.append(row)
        print(f"{'reached' if row.reached else 'MISSED':8} {row.name:12} {row.what}: {row.value:.3g} ({row.target})")


def run(
    argv: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None, codes: Sequence[int] = (0,)
) -> Measured:
    """Run a command to its end and measure it. Raises RuntimeError with the end of its output for another exit code."""
    started = time.perf_counter()
    child = subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=process.child_environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    peaks = [0.0, 0.0]
    threading.Thread(target=_sample, args=(child.pid, peaks), daemon=True).start()
    output, _ = child.communicate()
    seconds = time.perf_counter() - started
    if child.returncode not in codes:
        raise RuntimeError(f"{argv} ended with {child.returncode}:\n{output.decode('utf-8', 'replace')[-2000:]}")
    return Measured(seconds, peaks[0] / MIB, peaks[1] / MIB)


def _sample(pid: int, peaks: list[float], interval: float = 0.25) -> None:
    try:
        parent = psutil.Process(pid)
        while parent.is_running():
            peaks[0] = max(peaks[0], parent.memory_info().rss)
            peaks[1] = max(peaks[1], sum(map(_pss, [parent, *parent.children(recursive=True)])))
            time.sleep(interval)
    except psutil.Error:
        return


def _pss(of: psutil.Process) -> float:
    try:
        memory = of.memory_full_info()
    except (psutil.Error, OSError):
        return 0.0
    return float(getattr(memory, "pss", memory.uss))


def alternate(
    ours: Callable[[], Measured], bare: Callable[[], Measured], repeats: int
) -> tuple[list[Measured], list[Measured]]:
    """Both ways in turns, so that a slow minute of the machine hits both."""
    pairs = [(ours(), bare()) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def ratio(name: str, what: str, limit: float, ours: Sequence[float], bare: Sequence[float], note: str = "") -> Row:
    """A line whose value is median over median and should not be above the limit."""
    value = median(ours) / median(bare)
    return Row(name, what, value, f"≤ {limit}", value <= limit, ours, bare, note)


def at_most(name: str, what: str, limit: float, unit: str, values: Sequence[float], note: str = "") -> Row:
    """A line whose value is a median that should not be above the limit."""
    value = median(values)
    return Row(name, what, value, f"≤ {limit} {unit}", value <= limit, values, (), note)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from orchestrator.machine.environment import gpus

    return {
        "cores": cores(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": [gpu["name"] for gpu in gpus()],
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
