"""The tool in a forked process: its exit code, what it said, and which effects it had on the disk."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import cli
from orchestrator.lib import process
from orchestrator.pipeline import workflow
from tests.faults.stand_in import LEDGER, Scripts, environment, launcher

EFFECTS = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "shutil.copyfile",
    "sqlite3.connect",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SECONDS = 120.0
"""A tool that takes longer than that hangs, and is ended with SIGALRM."""
PAUSE = 0.003
for _name in (
    "orchestrator.cli.chain",
    "orchestrator.evaluation.measure",
    "orchestrator.report.console",
    "orchestrator.report.run_page",
    "psutil",
    "regex",
    "rich.live",
    "safetensors.numpy",
):
    importlib.import_module(_name)  # here, once, instead of in every fork

Strike = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens just before the tool's n-th effect on the disk; an OSError raised here is what the tool sees."""

    at: int
    strike: Strike
    lasting: bool = False
    """Whether every later effect is hit, too."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the tool: how it is hit and what its stages do besides."""

    arguments: Sequence[str] = ("run", "-q")
    blow: Blow | None = None
    scripts: Scripts = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    """Called in the tool's process before it begins."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How the tool ended; `code` is negative for a signal."""

    code: int
    stderr: str
    left_running: tuple[int, ...]
    hangs_at: str
    """Where each of its threads was when it had to be ended; '' when it ended by itself."""


def run(folder: Path, call: Call, effects: Path | None = None) -> Answer:
    """Run the tool in the project below `folder`; its effects are listed in a file when one is named."""
    before = len(ledger(folder / "project"))
    errors, threads = folder / "stderr.txt", folder / "threads.txt"
    tool = os.fork()
    if tool == 0:
        _be_the_tool(folder, call, effects)
    code = os.waitstatus_to_exitcode(_wait(tool))
    started = [int(line.split()[1]) for line in ledger(folder / "project")[before:]]
    running = tuple(pid for pid in started if not _ended(pid))
    return Answer(code, errors.read_text(encoding="utf-8"), running, threads.read_text(encoding="utf-8"))


def ledger(project: Path) -> list[str]:
    """The starts of stages so far."""
    file = project / LEDGER
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _wait(tool: int) -> int:
    waited = 0.0
    while waited < SECONDS:
        pid, status = os.waitpid(tool, os.WNOHANG)
        if pid:
            return status
        # Counted, not measured: a machine that stood still meanwhile, or a disk that lets it wait, is no hang.
        waited += PAUSE * (_state(tool) != "D")
        time.sleep(PAUSE)
    os.kill(tool, signal.SIGUSR1)  # say where
    time.sleep(1.0)
    os.kill(tool, signal.SIGALRM)  # no exit code that any fault expects
    return os.waitpid(tool, 0)[1]


def _state(pid: int) -> str:
    """A process's state as the kernel names it: R, S, D for one that waits for a disk, Z for one that has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _ended(pid: int) -> bool:
    """Whether a stage is gone; the kernel may take a moment after the death of the tool."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return _state(pid) == "Z"


def _be_the_tool(folder: Path, call: Call, effects: Path | None) -> None:
    code = 1
    try:
        _redirect(folder)
        os.environ |= environment(folder)
        os.chdir(folder / "project")
        _substitute(folder / "project", call.scripts)
        call.prepare()
        Effects(folder, call.blow, effects).watch()
        sys.argv = ["orchestrator", *call.arguments]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _redirect(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(folder / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - descriptors, not paths
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, file=os.open(folder / "threads.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def _substitute(project: Path, scripts: Scripts) -> None:
    workflow.launcher = lambda *_: None
    workflow.start = launcher(project, scripts)
    process.LOOK_SECONDS = 0.002
    process.GRACE_SECONDS = 0.3


class Effects:
    """Counts the tool's effects on files of the project and the cache, and strikes at one of them."""

    def __init__(self, folder: Path, blow: Blow | None, listed: Path | None) -> None:
        self._root, self._blow, self._count = str(folder), blow, 0
        self._listed = os.open(listed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if listed else None

    def watch(self) -> None:
        """From now on. CPython tells its audit hooks of everything but fsync and sqlite's own writing."""
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self._saw("fsync", "")
            fsync(descriptor)

        os.fsync = counted
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and flags & WRITING and os.fsdecode(path).startswith(self._root):
                self._saw(event, os.fsdecode(path))
        elif event in EFFECTS:
            self._saw(event, str(arguments[0]))

    def _saw(self, event: str, path: str) -> None:
        self._count += 1
        if self._listed is not None:
            os.write(self._listed, f"{event} {path}\n".encode())
        if self._blow and (self._count == self._blow.at or (self._blow.lasting and self._count > self._blow.at)):
            self._blow.strike()


def effects_of(folder: Path) -> Iterator[str]:
    """The effects of an uninterrupted chain in a fresh project, in order; the project is complete afterwards."""
    listed = folder / "effects.txt"
    answer = run(folder, Call(), listed)
    assert answer.code == 0, answer.stderr
    yield from listed.read_text(encoding="utf-8").splitlines()
