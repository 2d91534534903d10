"""Stages forked from one process that has already imported what they need.

Every `llamafactory-cli` spends seconds on importing torch and transformers before it does anything. Here a forkserver
of `multiprocessing` imports them once, and each stage starts as a copy of it. It is still what it was: the same program
with the same arguments, a process and a session of its own, its output in its log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from orchestrator.lib import process
from orchestrator.lib.language import localised
from orchestrator.lib.step import Step

SEVERAL = 2
"""From so many stages on, the imports that are saved outweigh those done ahead."""
PRELOAD = "orchestrator.executors.preload"
LLAMAFACTORY = "llamafactory-cli"

_reaping = threading.Lock()
"""multiprocessing reaps every child at each start, so starting and polling in several threads must not meet."""
logger = logging.getLogger(__name__)


class WarmLauncher:
    """Starts the commands of steps warm, and from the first failure to do so on, plainly."""

    def __init__(self) -> None:
        self._works = True

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        if self._works and is_python(command.argv) and not step.spawns:
            try:
                return WarmChild(fork(command))
            except (OSError, EOFError) as error:
                self._works = False
                logger.warning("%s", localised(f"cannot start stages warm ({error!r}); starting each by itself"))
        return process.start(command)


class WarmChild:
    """A stage that was forked; the leader of its own process group."""

    def __init__(self, child: BaseProcess) -> None:
        assert child.pid is not None
        self._child = child
        self.pid = child.pid

    def poll(self) -> int | None:
        with _reaping:
            return self._child.exitcode

    def stop(self) -> None:
        process.end_group(self.pid, self.poll)
        if self.poll() is None:  # it had not yet become the leader of a group
            self._child.kill()


@dataclass(frozen=True, slots=True)
class Job:
    """What a forked child turns itself into."""

    argv: tuple[str, ...]
    cwd: Path
    log: Path
    env: Mapping[str, str]

    def run(self) -> None:
        """Become the command. What it raises or exits with decides the exit code, as in a process of its own."""
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        die_with_the_tool()
        self._redirect()
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.env)
        set_threads(self.env)
        run_python(self.argv)

    def _redirect(self) -> None:
        for target, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (2, self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ):
            opened = os.open(path, flags, 0o666)
            os.dup2(opened, target)
            os.close(opened)


def launcher(execution: Literal["auto", "cli", "warm"], stages: int) -> WarmLauncher | None:
    """The launcher for a spec's `execution` and the number of stages to do; None where each is to start by itself."""
    if execution == "warm" or (execution == "auto" and stages >= SEVERAL):
        return WarmLauncher()
    return None


def fork(command: process.Command) -> BaseProcess:
    """The started child that becomes a command. Raises OSError or EOFError when there is no forkserver to be had."""
    import multiprocessing

    command.log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    environment = process.child_environment(command.env)
    job = Job(tuple(command.argv), command.cwd.resolve(), command.log.resolve(), environment)
    child = context.Process(target=job.run, name=LLAMAFACTORY)
    # Python's resource tracker lives on for a moment after Ctrl-C and would warn of a semaphore that nobody lost.
    quiet = {"PYTHONWARNINGS": "ignore:resource_tracker"}
    with _reaping, _environment(process.child_environment(quiet)):
        context.set_forkserver_preload([PRELOAD])
        child.start()
    return child


def is_python(argv: Sequence[str]) -> bool:
    """Whether a command is one that a copy of this interpreter can become."""
    return argv[0] == LLAMAFACTORY or (argv[0] == sys.executable and len(argv) > 1)


def run_python(argv: tuple[str, ...]) -> None:
    """Run `llamafactory-cli …`, `python -m MODULE …` or `python SCRIPT …` in this process."""
    if argv[0] == LLAMAFACTORY:
        sys.argv = list(argv)
        from llamafactory.cli import main

        main()
    elif argv[1] == "-m":
        sys.argv = list(argv[2:])
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(argv[1:])
        sys.path.insert(0, str(Path(argv[1]).parent))
        runpy.run_path(argv[1], run_name="__main__")


def set_threads(env: Mapping[str, str]) -> None:
    """Give a torch that is already loaded the threads of the environment, which OpenMP reads only once."""
    wanted, torch = env.get("OMP_NUM_THREADS"), sys.modules.get("torch")
    if wanted and torch:
        torch.set_num_threads(int(wanted))


def die_with_the_tool() -> None:
    """End this process and all it starts when the tool, or the forkserver, is gone, however that came about."""
    import multiprocessing

    process.die_with_parent()
    tool = multiprocessing.parent_process()
    assert tool is not None

    def watch() -> None:
        tool.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="tool-watch").start()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    # The forkserver takes ours when it starts; UTF-8 mode and unbuffered output cannot be had later.
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
