"""Who works on a run, or a sweep: one tool at a time."""

from __future__ import annotations

import contextlib
import os
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
