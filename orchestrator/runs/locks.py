"""Who works on a run, or a sweep: one tool at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.lib import layout
from orchestrator.lib.errors import BusyError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one tool works on a run; the lock of a tool that died is free again. Raises BusyError when it is taken."""
    if (release := claim(folder / layout.LOCK)) is None:
        raise BusyError(
            f"another orchestrator is working on run {folder.name}", "Wait for it, or stop it and try again."
        )
    try:
        yield
    finally:
        release()


def claim(file: Path, seconds: float = 0.0) -> Callable[[], None] | None:
    """Take a lock, waiting that long at most; returns what gives it back, or None while somebody else has it."""
    from filelock import FileLock, Timeout  # a plan locks nothing

    lock = FileLock(file, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock.release


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a run or a sweep."""
    try:
        with locked(folder):
            return False
    except BusyError:
        return True


def worker(folder: Path) -> int | None:
    """The process of this machine that works on a run or a sweep; None when there is none, or it is somebody else's."""
    import psutil

    lock = os.path.realpath(folder / layout.LOCK)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = Path(process.exe()).name.startswith("python")
            if ours and any(opened.path == lock for opened in process.open_files()):
                return int(process.pid)
    return None


def stop(folder: Path) -> bool:
    """Ask the process that works on a run or a sweep to end, as Ctrl-C does; False when nobody here does."""
    import psutil

    pid = worker(folder)
    if pid is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).terminate()
    return True
