"""The one door to other programs: each in a session of its own, its output in a log, ended with all its children."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.lib import cpu, layout
from orchestrator.lib.errors import Interrupted, OrchestratorError

GRACE_SECONDS = 10.0
"""How long a child may take to end by itself after SIGTERM."""
LOOK_SECONDS = 0.1
"""How often children are looked at."""
SPINS = "10000"
"""How often a thread of OpenMP looks for the others before it sleeps; of libgomp's own 300,000 each that meets another
program on its core costs milliseconds, thousands of times a step (libgomp manual, GOMP_SPINCOUNT; measured in
docs/performance.md)."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


Failed = subprocess.SubprocessError
"""What `output` raises when a program fails or takes too long."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run. `env` is added to the environment; the log receives standard output and error."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)


class Child(Protocol):
    """A started command, wherever it runs."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""

    def stop(self) -> None:
        """End it and everything it started."""


class LocalChild:
    """A child process of this machine and the group that it leads."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid

    def poll(self) -> int | None:
        running = self._popen.returncode is None
        code = self._popen.poll()
        if running and code is not None:  # what it left behind ends with it; once only, for ids are given out again
            end_group(self.pid, self._popen.poll)
        return code

    def stop(self) -> None:
        end_group(self.pid, self._popen.poll)


def start(command: Command) -> LocalChild:
    """Start a command, its output appended to the log."""
    return LocalChild(_popen(command, die_with_parent if sys.platform == "linux" else None))


def start_detached(command: Command) -> None:
    """Start a command that goes on when this process has ended; its output is appended to the log."""
    _popen(command, None)


def _popen(command: Command, first: Callable[[], None] | None) -> subprocess.Popen[bytes]:
    """A command in a session of its own; `first` is called in it before the program starts."""
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        return subprocess.Popen(
            list(command.argv),
            cwd=command.cwd,
            env=child_environment(command.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=first,
        )


def said(log: Path) -> list[str]:
    """The lines that a command has printed, blank ones left out; broken UTF-8 does no harm."""
    return list(filter(str.strip, log.read_text(encoding="utf-8", errors="replace").splitlines()))


def wait(child: Child, watch: Callable[[], None] = lambda: None) -> int:
    """The exit code of a child; `watch` is called while it runs. Whatever interrupts the wait ends the child."""
    return wait_any([child], watch)[1]


def wait_any(children: Sequence[Child], watch: Callable[[], None]) -> tuple[int, int]:
    """Which child ended first, by its index, and with what exit code. Whatever interrupts the wait ends all of them."""
    try:
        while Interrupted.dropped is None:
            for index, child in enumerate(children):
                if (code := child.poll()) is not None:
                    return index, code
            watch()
            time.sleep(LOOK_SECONDS)
        raise Interrupted.dropped
    except BaseException:
        for child in children:
            child.stop()
        raise


def output(argv: Sequence[str], timeout: float = 30, given: str | None = None) -> str:
    """What a short command prints on standard output; `given` is what it reads.

    Raises OSError when it cannot be started and Failed when it fails or takes too long.
    """
    done = subprocess.run(list(argv), input=given, capture_output=True, text=True, check=True, timeout=timeout)
    return done.stdout


def end_group(leader: int, poll: Callable[[], int | None]) -> None:
    """Ask a process group to end, then make it: nothing that the leader started may outlive it."""
    for signal_number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        if not _signal_group(leader, signal_number):
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (poll() is None or _signal_group(leader, 0)):
            time.sleep(0.05)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment with the interpreter's own programs first on PATH: no virtual environment need be active.

    OpenMP, which torch and llama.cpp compute with, starts a thread for each core it sees, however few of them a
    container may use; there it is told. How long its threads wait awake is said unless the user says how they wait.
    """
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    threads = {"OMP_NUM_THREADS": str(cpu.cores())} if cpu.quota() else {}
    waiting = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": SPINS}
    return {**threads, **waiting, **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **extra}


def _signal_group(leader: int, signal_number: int) -> bool:
    try:
        os.killpg(leader, signal_number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the one that started it ends; Linux only, elsewhere nothing."""
    # Without this, kill -9 of the tool leaves a training behind that writes into a run nobody watches.
    # The library is loaded beforehand: between fork and exec another thread's lock on the loader would never be freed.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends; Linux only, elsewhere nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def run_program(main: Callable[[], None]) -> None:
    """Call the work of a program that we start ourselves; end with the exit code of what went wrong, and with a line
    that says it: the last of its log, which is read back."""
    try:
        main()
    except OrchestratorError as error:
        report = {"exit_code": error.exit_code, "message": error.message, "hint": error.hint}
        print(layout.WORKER_ERROR + json.dumps(report, ensure_ascii=False), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
