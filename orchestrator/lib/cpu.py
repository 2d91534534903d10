"""What this process may really use of the machine."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_QUOTA = _CGROUP / "cpu.max"


def cores() -> int:
    """CPU cores that this process may run on: its affinity, cut by the cgroup's quota, at least one."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, quota() or available))


def threads() -> int:
    """How many threads to compute with: what OMP_NUM_THREADS says, as it does to torch, else one for each core."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(told)) if told.isdecimal() else cores()


def memory_left() -> list[int]:
    """Bytes that the cgroup still allows; empty where it sets no limit."""
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        return [int(limit) - int(used)]
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return []


def quota() -> int | None:
    """CPU cores' worth of time that the cgroup allows; None where it sets no limit."""
    # "max 100000" or "<microseconds of CPU> <microseconds of time>"; see the kernel's cgroup-v2 documentation.
    try:
        allowed, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if allowed == "max" else max(1, round(int(allowed) / int(period)))
