"""A stage under way: its files written, its process started and watched, what it left checked and recorded."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.lib import layout, process, secrecy
from orchestrator.lib.errors import Interrupted, Pruned, StageError
from orchestrator.lib.files import HashCache, read_json, write_text
from orchestrator.lib.step import Step
from orchestrator.machine.usage import PeakMemory
from orchestrator.models.finite import Losses, require_finished
from orchestrator.pipeline.failure import explain
from orchestrator.runs import outputs
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run

SUBREAPER = "orchestrator.lib.subreaper"

Starter = Callable[[Step, process.Command], process.Child]


def start(step: Step, command: process.Command) -> process.Child:
    """The plain way: a process of its own."""
    return process.start(command)


@dataclass(slots=True)
class StageProcess:
    """A step of a run, its process started; whoever starts it must `close` it."""

    planned: Planned
    run: Run
    release: Callable[[], None]
    """Gives the claim on its result back."""
    content_fingerprint: str = ""
    """Of what it reads, as it is now."""
    child: process.Child | None = field(init=False, default=None)
    started: Step | None = field(init=False, default=None)
    """The step with the command that was started, which may go on from a checkpoint."""
    began: float = field(init=False, default_factory=time.monotonic)
    losses: Losses | None = field(init=False, default=None)
    memory: PeakMemory | None = field(init=False, default=None)
    failed: bool = field(init=False, default=False)
    """Whether it is the reason why everything ends."""

    @property
    def step(self) -> Step:
        """What is done."""
        return self.planned.step

    def begin(self, launch: Starter, step: Step, env: Mapping[str, str]) -> None:
        """Start the process: the step as it is adapted to this machine, in an environment that changes no result."""
        run, before = self.run, self.run.stage(step.stage)
        unfinished = before.get("status") != "completed"  # one that was finished is repeated because a file is damaged
        same = before.get("fingerprint") == self.planned.fingerprint
        resumable = unfinished and same
        for path in step.keeps if same and not unfinished else ():
            write_text(run.folder / path, "")
        argv = set_up(step, run, resumable)
        command = process.Command(kept(step, argv), run.folder, self._log, {**env, **step.env})
        run.begin(step, self.planned.fingerprint, argv, self.content_fingerprint)
        self.started = replace(step, argv=argv)
        self.child = launch(step, command)
        if step.checkpoints:
            self.losses = Losses(run.folder / step.folder)
            self.memory = PeakMemory(self.child.pid)

    def look(self) -> None:
        """Raise StageError when it is a training that goes nowhere."""
        if self.memory:
            self.memory.look()
        try:
            if self.losses:
                self.losses.look()
        except StageError:
            self.failed = True
            raise

    def stop(self) -> None:
        """End the process, if it was started and still runs."""
        if self.child and self.child.poll() is None:
            self.child.stop()

    def close(self, status: str, code: int | None, hashes: HashCache) -> float:
        """Record how it ended, and what it left if that was well; returns the seconds it took."""
        seconds, run, step = time.monotonic() - self.began, self.run, self.step
        try:
            secrecy.clean(self._log)
            done = outputs.finished(run.folder, produced(step, run.folder), hashes) if status == "completed" else []
            if run.stage(step.stage).get("status") == "running":
                if self.memory and (peak := self.memory.to_json()):
                    run.stage(step.stage)["peak_memory"] = peak
                run.end(step.stage, status, seconds, code, done)
        finally:
            self.release()
        return seconds

    @property
    def _log(self) -> Path:
        return self.run.folder / layout.log(self.step.stage)


def set_up(step: Step, run: Run, resumable: bool) -> tuple[str, ...]:
    """Write a step's files and clear its folder; returns its command, which goes on from a checkpoint it finds."""
    checkpoint = newest_checkpoint(run.folder / step.folder) if step.checkpoints and resumable else None
    if step.folder and checkpoint is None:
        shutil.rmtree(run.folder / step.folder, ignore_errors=True)
    for path in (*step.partials, *step.expects, *step.leaves):
        (run.folder / path).unlink(missing_ok=True)  # it proves nothing, and may be another run's too
    for path, text in (*step.hints.items(), *step.files.items()):
        write_text(run.folder / path, text, durable=False)  # written again by whoever needs it
    for parent in {(run.folder / path).parent for path in (*step.expects, *step.partials)}:
        parent.mkdir(parents=True, exist_ok=True)
    (run.folder / layout.log(step.stage)).unlink(missing_ok=True)
    if checkpoint is None:
        return step.argv
    return (*step.argv, f"resume_from_checkpoint={checkpoint.relative_to(run.folder)}")


def kept(step: Step, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command as it is started: under a keeper where it starts processes that no signal to its group reaches."""
    return (sys.executable, "-m", SUBREAPER, *argv) if step.spawns else argv


def newest_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that is whole; later ones that are not are removed.

    trainer_state.json is the last file that transformers writes, so one that can be read means a whole checkpoint.
    """
    for checkpoint in reversed(layout.checkpoints(folder)):
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
        require_finished(folder / step.folder)


def require_whole_inputs(step: Step, run: Run) -> None:
    """Raise StageError when a step that failed had read a file that is no longer as it was made."""
    hashes = HashCache(paranoid=True)  # a disk that loses bits changes no file's time
    for stage in step.needs:
        for output in run.stage(stage).get("outputs", ()):
            if outputs.damage(run.folder, output, hashes):
                raise StageError(
                    f"{step.stage} failed, and {output['path']} that it reads is damaged",
                    f"Run the same command again with --force {stage}, which makes it again.",
                )


def produced(step: Step, folder: Path) -> list[str]:
    """The files that a step left: what it promised, what else is a result, and what lies in its own folder
    (checkpoints left out)."""
    own = [path for path in (folder / step.folder).iterdir() if path.is_file()] if step.folder else []
    besides = [path for path in step.leaves if (folder / path).is_file()]
    return sorted({*step.expects, *besides, *(str(path.relative_to(folder)) for path in own)})


def status_of(error: BaseException) -> str:
    """What is recorded of a run or a stage that this ended; submitit exits where a scheduler takes its machine back."""
    if isinstance(error, Pruned):
        return "pruned"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit, Interrupted)) else "failed"
