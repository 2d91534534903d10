"""Carry out a plan: write files, run, check outputs, record. What a stage means is not known here."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from orchestrator import divergence, environment, layout, process, records, secrecy
from orchestrator.errors import BusyError, Interrupted, Pruned, StageError
from orchestrator.failure import explain
from orchestrator.files import HashCache, link, read_json, remove_leftovers, write_text
from orchestrator.plan import Plan, Planned
from orchestrator.records import Run
from orchestrator.step import Step

KEEPER = "orchestrator.workers.keeper"

Launch = Callable[[Step, process.Command], process.Child]
Extra = Callable[[Step, Path], tuple[str, ...]]
"""Step, run folder → arguments to add that change no result, chosen when the step starts."""


def start(step: Step, command: process.Command) -> process.Child:
    """The plain way: a process of its own."""
    return process.start(command)


class Watcher(Protocol):
    """Someone who wants to see what is happening."""

    def starts(self, step: Step, folder: Path) -> None:
        """A step's process was started in a run's folder."""

    def tick(self) -> None:
        """It is still running."""

    def ends(self, step: Step, status: str, seconds: float) -> None:
        """It is over: completed, failed, interrupted, reused or up to date."""


@dataclass(frozen=True, slots=True)
class Executor:
    """How plans are carried out on this machine."""

    runs_dir: Path
    hashes: HashCache
    watcher: Watcher
    launch: Launch = start
    extra: Extra = lambda step, folder: ()

    def carry_out(self, plan: Plan, run: Run) -> None:
        """Do every step that is not up to date, in order, and record each.

        Raises StageError when one fails, GateError when an artifact is at fault, Interrupted on a signal.
        """
        records.refuse_links(run.folder)
        with locked(run.folder):
            remove_leftovers(run.folder, "**/.*.tmp")
            run.set(status="running", finished_at=None, scheduler=environment.scheduler())
            made: set[str] = set()
            try:
                for planned in plan.steps:
                    self._one(planned, run, made)
            except BaseException as error:
                run.set(status=status_of(error), finished_at=records.now())
                raise
            finally:
                self.hashes.save()
            run.set(status="completed", finished_at=records.now())

    def _one(self, planned: Planned, run: Run, made: set[str]) -> None:
        if planned.up_to_date:
            self.watcher.ends(planned.step, "up to date", 0.0)
            return
        with self._claim(planned):
            # What follows from a result that nobody had, nobody has: no need to look for it.
            donor = None if made.intersection(planned.step.needs) else self._donor(planned, run)
            if donor:
                adopt(planned.step, run, donor)
                self.watcher.ends(planned.step, "reused", 0.0)
            else:
                self._run(planned, run)
                made.add(planned.step.stage)

    @contextlib.contextmanager
    def _claim(self, planned: Planned) -> Iterator[None]:
        """Nobody else makes the same result meanwhile: who comes second waits, and then takes it over."""
        if not planned.step.shared:
            yield
            return
        folder = self.runs_dir / layout.LOCKS
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / planned.fingerprint[:16], timeout=0.2)
        while not lock.is_locked:
            self.watcher.tick()
            with contextlib.suppress(Timeout):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _donor(self, planned: Planned, run: Run) -> Run | None:
        if planned.why == "forced":
            return None
        found = records.holder(self.runs_dir, planned.step.stage, planned.fingerprint)
        return found if found and found.folder != run.folder else None

    def _run(self, planned: Planned, run: Run) -> None:
        step, started = planned.step, time.monotonic()
        argv = set_up(step, run, resumable=run.stage(step.stage).get("fingerprint") == planned.fingerprint)
        argv = (*argv, *self.extra(step, run.folder))
        command = process.Command(kept(step, argv), run.folder, run.folder / layout.log(step.stage), step.env)
        status, code = "failed", None
        try:
            run.begin(step, planned.fingerprint, argv)
            child = self.launch(step, command)
            self.watcher.starts(step, run.folder)
            code = process.wait(child, self._looks(step, run.folder))
            require_success(step, run, code)
            status = "completed"
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            seconds = time.monotonic() - started
            secrecy.clean(command.log)
            done = records.outputs(run.folder, produced(step, run.folder), self.hashes) if status == "completed" else []
            if run.stage(step.stage).get("status") == "running":
                run.end(step.stage, status, seconds, code, done)
            self.watcher.ends(step, status, seconds)

    def _looks(self, step: Step, folder: Path) -> Callable[[], None]:
        """What is done now and then while a step runs: it is shown, and a training that goes nowhere is ended."""
        if not step.checkpoints:
            return self.watcher.tick
        losses = divergence.Losses(folder / step.folder)

        def look() -> None:
            self.watcher.tick()
            losses.look()

        return look


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


def set_up(step: Step, run: Run, resumable: bool) -> tuple[str, ...]:
    """Write a step's files and clear its folder; returns its command, which goes on from a checkpoint it finds."""
    checkpoint = newest_checkpoint(run.folder / step.folder) if step.checkpoints and resumable else None
    if step.folder and checkpoint is None:
        shutil.rmtree(run.folder / step.folder, ignore_errors=True)
    for path in (*step.partials, *step.expects):  # what lies there already proves nothing, and may be another run's too
        (run.folder / path).unlink(missing_ok=True)
    for path, text in step.files.items():
        write_text(run.folder / path, text, durable=False)  # written again by whoever needs it
    for path in (*step.expects, *step.partials):
        (run.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (run.folder / layout.log(step.stage)).unlink(missing_ok=True)
    if checkpoint is None:
        return step.argv
    return (*step.argv, f"resume_from_checkpoint={checkpoint.relative_to(run.folder)}")


def kept(step: Step, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command as it is started: under a keeper where it starts processes that no signal to its group reaches."""
    return (sys.executable, "-m", KEEPER, *argv) if step.launches else argv


def newest_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that is whole; later ones that are not are removed.

    trainer_state.json is the last file that transformers writes, so one that can be read means a whole checkpoint.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            read_json(checkpoint / "trainer_state.json")
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
            continue
        return checkpoint
    return None


def require_success(step: Step, run: Run, code: int) -> None:
    """Raise the fitting error unless a step ended with 0 and left all that it promised; finish its growing files."""
    folder, log = run.folder, run.folder / layout.log(step.stage)
    if code != 0:
        if code != -signal.SIGKILL:  # out of memory, most likely; reading gigabytes again would not tell more
            require_whole_inputs(step, run)
        raise explain(step, log, code)
    for growing, final in step.partials.items():
        if not (folder / growing).is_file():
            raise StageError(f"{step.stage} ended well but did not write {final}", f"Read {log}.")
        (folder / growing).replace(folder / final)
    for path in step.expects:
        if not (folder / path).is_file() or (folder / path).stat().st_size == 0:
            raise StageError(f"{step.stage} ended well but {path} is missing or empty", f"Read {log}.")
    if step.checkpoints:
        divergence.require_finished(folder / step.folder)


def require_whole_inputs(step: Step, run: Run) -> None:
    """Raise StageError when a step that failed had read a file that is no longer as it was made."""
    hashes = HashCache(run.folder / layout.RECORD, paranoid=True)  # a disk that loses bits changes no file's time
    for stage in step.needs:
        for output in run.stage(stage).get("outputs", ()):
            if not records.is_whole(run.folder / output["path"], output, hashes):
                raise StageError(
                    f"{step.stage} failed, and {output['path']} that it reads is damaged",
                    f"Run the same command again with --force {stage}, which makes it anew.",
                )


def produced(step: Step, folder: Path) -> list[str]:
    """The files that a step left: what it promised, and what lies in its own folder (checkpoints left out)."""
    own = [path for path in (folder / step.folder).iterdir() if path.is_file()] if step.folder else []
    return sorted({*step.expects, *(str(path.relative_to(folder)) for path in own)})


def adopt(step: Step, run: Run, donor: Run) -> None:
    """Take a finished stage's outputs from another run: linked where the disk can, copied elsewhere."""
    entry = donor.stage(step.stage)
    run.forget(step.stage)
    for path, text in step.files.items():
        write_text(run.folder / path, text, durable=False)  # written again by whoever needs it
    for output in entry["outputs"]:
        link(donor.folder / output["path"], run.folder / output["path"])
    run.adopt(step.stage, entry, donor.id)


def status_of(error: BaseException) -> str:
    """What is recorded of a run or a stage that this ended; submitit exits where a scheduler takes its machine back."""
    if isinstance(error, Pruned):
        return "pruned"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit, Interrupted)) else "failed"
