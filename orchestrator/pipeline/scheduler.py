"""Carry out a plan: what to start when, and what to take over from other runs. What a stage means is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.lib import layout, process
from orchestrator.lib.cpu import threads
from orchestrator.lib.files import HashCache, link, remove_leftovers, write_text
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.pipeline.plan import Plan, startable
from orchestrator.pipeline.stage_process import StageProcess, Starter, require_success, start, status_of
from orchestrator.runs import outputs, reuse, store
from orchestrator.runs.locks import claim, locked
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.stages.llamafactory import with_choices

Adapt = Callable[[Step, Path], Step]
"""Step, run folder → the step as it starts on this machine, with what changes no result."""
AtOnce = Callable[[Path], int]
"""Run folder → how many steps may be under way at once, asked whenever there could be two."""
CLAIM_SECONDS = 0.2
"""How long to wait at a time for what another tool is making."""


class Reporter(Protocol):
    """Someone who wants to see what is happening."""

    def starts(self, step: Step, folder: Path) -> None:
        """A step's process was started in a run's folder."""

    def tick(self) -> None:
        """What was started is still running."""

    def ends(self, step: Step, status: str, seconds: float) -> None:
        """It is over: completed, failed, interrupted, reused or up to date."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """How plans are carried out on this machine."""

    runs_dir: Path
    hashes: HashCache
    reporter: Reporter
    launch: Starter = start
    adapt: Adapt = lambda step, folder: step
    at_once: AtOnce = lambda folder: 1

    def carry_out(self, plan: Plan, run: Run, findings: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Do every step that is not up to date, those that need each other in order, and record each; at the end,
        with the run's completion, what `findings` then says.

        Raises StageError when one fails, GateError when an artifact is at fault, Interrupted on a signal.
        """
        outputs.refuse_links(run.folder)
        with locked(run.folder):
            remove_leftovers(run.folder, "**/.*.tmp")
            run.resume(scheduler=environment.scheduler())
            try:
                self._work(plan, run)
                found = findings()
            except BaseException as error:
                run.set(status=status_of(error), finished_at=store.now())
                raise
            finally:
                self.hashes.save()
            run.set(status="completed", finished_at=store.now(), **found)

    def _work(self, plan: Plan, run: Run) -> None:
        waiting = list(plan.steps)
        self._spare([planned for planned in plan.steps if planned.up_to_date], waiting)
        running: list[StageProcess] = []
        before = {one.step.stage: run.stage(one.step.stage).get("outputs") for one in waiting}
        try:
            while waiting or running:
                under_way = {one.step.stage for one in running}
                self._spare(list(reuse.spared(waiting, under_way, run, before)), waiting)
                claimed = self._claim_some(waiting, running, run)
                self._start([one for one in claimed if not self._taken_over(one)], running)
                if running:
                    self._await_one(running)
        except BaseException as error:
            self._abandon(running, status_of(error))
            raise

    def _spare(self, there: Sequence[Planned], waiting: list[Planned]) -> None:
        """Leave out what is there, and say so."""
        for planned in there:
            waiting.remove(planned)
            self.reporter.ends(planned.step, "up to date", 0.0)

    def _claim_some(self, waiting: list[Planned], running: Sequence[StageProcess], run: Run) -> list[StageProcess]:
        """Take what may start now off the waiting ones; a result that another tool is making can wait for it."""
        ready = startable(waiting, [one.step for one in running], lambda: self.at_once(run.folder))
        claims = [(planned, self._claim(planned)) for planned in ready]
        claimed = [StageProcess(planned, run, release) for planned, release in claims if release]
        if ready and not claimed and not running:
            claimed = [StageProcess(ready[0], run, self._claim_patiently(ready[0]))]
        for one in claimed:
            waiting.remove(one.planned)
        return claimed

    def _claim(self, planned: Planned, seconds: float = 0.0) -> Callable[[], None] | None:
        """See to it that nobody else makes the same result meanwhile; returns what gives the claim back.

        None when somebody else has had it all the time.
        """
        if not planned.step.single_flight:
            return lambda: None
        folder = self.runs_dir / layout.LOCKS
        folder.mkdir(exist_ok=True)
        return claim(folder / planned.fingerprint[:16], seconds)

    def _claim_patiently(self, planned: Planned) -> Callable[[], None]:
        """Who comes second waits, and then takes the result over."""
        while (release := self._claim(planned, CLAIM_SECONDS)) is None:
            self.reporter.tick()
        return release

    def _taken_over(self, one: StageProcess) -> bool:
        """Whether another run had the result, which is then this one's, too."""
        one.content_fingerprint = reuse.contents(one.planned, one.run)
        donor = reuse.donor(one.run, one.planned, one.content_fingerprint, self.hashes)
        if donor is None:
            return False
        take_over(one.step, one.run, donor, one.planned.fingerprint)
        one.release()
        self.reporter.ends(one.step, "reused", 0.0)
        return True

    def _start(self, claimed: Sequence[StageProcess], running: list[StageProcess]) -> None:
        """Start steps; where several are under way, each gets its part of the cores."""
        running += claimed
        env = {"OMP_NUM_THREADS": str(max(1, threads() // len(running)))} if len(running) > 1 else {}
        for one in claimed:
            one.begin(self.launch, self.adapt(one.step, one.run.folder), env)
            self.reporter.starts(one.started or one.step, one.run.folder)

    def _await_one(self, running: list[StageProcess]) -> None:
        """Wait until a step ends. Raises what a failed one deserves."""

        def watch() -> None:
            self.reporter.tick()
            for one in running:
                one.look()

        index, code = process.wait_any([one.child for one in running if one.child], watch)
        one, status = running.pop(index), "failed"
        try:
            require_success(one.step, one.run, code)
            status = "completed"
        finally:
            self._close(one, status, code)

    def _abandon(self, running: Sequence[StageProcess], status: str) -> None:
        """End what still runs. Where one stage failed, the others did not: they were interrupted by that."""
        for one in running:
            one.stop()
        others = "interrupted" if status == "failed" else status
        for one in running:
            self._close(one, "failed" if one.failed else others)

    def _close(self, one: StageProcess, status: str, code: int | None = None) -> None:
        self.reporter.ends(one.step, status, one.close(status, code, self.hashes))


def take_over(step: Step, run: Run, donor: Run, fingerprint: str) -> None:
    """Take a finished stage's outputs from another run: linked where the disk can, copied elsewhere."""
    entry = donor.stage(step.stage)
    run.forget(step.stage)
    for path, text in with_choices(step, entry.get("speed", {})).files.items():
        write_text(run.folder / path, text, durable=False)  # written again by whoever needs it
    for output in entry.get("outputs", ()):
        link(donor.folder / output["path"], run.folder / output["path"])
    for pattern in step.shares:
        for file in filter(Path.is_file, donor.folder.glob(pattern)):
            link(file, run.folder / file.relative_to(donor.folder))
    run.take_over(step.stage, entry, fingerprint, donor.id)
