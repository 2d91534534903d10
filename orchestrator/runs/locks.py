"""Who works on a run, or a sweep: one tool at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.lib import layout
from orchestrator.lib.errors import BusyError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one tool works on a run; the lock of a tool that died is free again. Raises BusyError when it is taken."""
    lock = FileLock(folder / layout.LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"another orchestrator is working on run {folder.name}", "Wait for it, or stop it and try again."
        ) from None
    try:
        yield
    finally:
        lock.release()
