"""What a person sees while stages run: live lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.lib import layout
from orchestrator.lib.language import localised
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.pipeline.failure import tail
from orchestrator.runs.training_log import (
    loss_line,
    newest,
    read_log,
    resumed_from,
    resumed_step,
    to_go_on_from,
    training_line,
)

GPU_SECONDS = 10.0
"""How often the GPU is asked: nvidia-smi may take a second."""
PLAIN_SECONDS = 15.0
"""How often a stage that takes long says so where there is no terminal."""
SILENT_SECONDS = 60.0
"""From when on it is said how long a stage has printed nothing: it loads something large, or it hangs."""
MARKS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "interrupted": ("■", "yellow"),
    "pruned": ("✂", "yellow"),
    "diverged": ("✗", "red"),
    "unusable": ("✗", "red"),
}


class Display:
    """Shows stages as they start, go on and end. `verbosity` −1 shows nothing, 1 also the commands."""

    def __init__(self, console: Console, verbosity: int = 0) -> None:
        self._console, self._verbosity = console, verbosity
        self._live: Live | None = None
        self._running: dict[str, ShownStage] = {}

    def starts(self, step: Step, folder: Path) -> None:
        """Begin to show a step."""
        if self._verbosity < 0:
            return
        if self._verbosity > 0:
            self._console.print(f"  $ {' '.join(step.argv)}", style="dim", highlight=False, soft_wrap=True)
        self._running[step.stage] = ShownStage(step, folder)
        resumed = f", resumed from {checkpoint}" if (checkpoint := resumed_from(step.argv)) else ""
        if resumed or not self._console.is_terminal:
            self._console.print(f"… {step.stage}{resumed}", highlight=False)
        elif self._live is None:
            self._live = Live(Text(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def tick(self) -> None:
        """Refresh what is shown of the running steps."""
        moment = time.monotonic()
        if self._live is not None:
            lines = [f"… {stage.step.stage:<15} {stage.state(moment)}" for stage in self._running.values()]
            self._live.update(Text(localised("\n".join(lines))))
            return
        for stage in self._running.values():
            if line := stage.news(moment):
                self._console.print(line, highlight=False)

    def ends(self, step: Step, status: str, seconds: float) -> None:
        """Show how a step ended."""
        shown = self._running.pop(step.stage, None)
        if self._live is not None and not self._running:
            self._live.stop()
            self._live = None
        if self._verbosity < 0:
            return
        mark, style = MARKS.get(status, ("·", "dim"))
        took = f"{seconds:6.1f} s" if seconds else f"  {status}"
        final = shown.result() if shown and status == "completed" else ""
        self._console.print(Text(f"{mark} {step.stage:<15} {took}  {final}".rstrip(), style=style))
        if shown and step.checkpoints and status in ("interrupted", "failed"):
            self._console.print(f"  {to_go_on_from(newest(shown.folder))}", highlight=False)


class ShownStage:
    """A stage that runs, as its files tell it."""

    def __init__(self, step: Step, folder: Path) -> None:
        self.step, self.folder = step, folder
        self._started = self._said = self._heard = time.monotonic()
        self._size = -1
        self._earlier = len(read_log(folder)) if step.checkpoints else 0
        """Entries of the log that an earlier process wrote."""
        self._passes = Passes()
        self._last_line = ""
        self._gpu = ""
        self._gpu_asked = -math.inf

    def news(self, moment: float) -> str:
        """A line from time to time, where there is no terminal; '' in between, and where nothing has changed."""
        if moment - self._said < PLAIN_SECONDS:
            return ""
        self._said = moment
        line = f"  {self.step.stage}: {self.state(moment)}"
        before, self._last_line = self._last_line, line
        return line if line != before else ""

    def state(self, moment: float) -> str:
        """How far it is."""
        elapsed = f"{moment - self._started:.0f} s"
        if self.step.stage == "train":
            own = read_log(self.folder)[self._earlier :]
            start = resumed_step(self.step.argv)
            said = training_line(own[-1], own, start) if own else f"{elapsed}, {_before_a_loss(self._log)}"
            return f"{said}{self._gpu_memory(moment)}{self._silence(moment)}"
        return f"{elapsed}{self._passes.said(rows_done(self._log))}{self._silence(moment)}"

    def result(self) -> str:
        """What a stage that has ended came to, where that can be said in few words."""
        if self.step.stage == "train":
            return loss_line(read_log(self.folder))
        return (tail(self._log) or [""])[-1] if self.step.stage == "keep" else ""

    @property
    def _log(self) -> Path:
        return self.folder / layout.log(self.step.stage)

    def _silence(self, moment: float) -> str:
        """How long the step has printed nothing; '' while that is usual."""
        with contextlib.suppress(OSError):
            if (size := self._log.stat().st_size) != self._size:
                self._heard, self._size = moment, size
        silent = moment - self._heard
        return f", silent for {silent:.0f} s" if silent >= SILENT_SECONDS else ""

    def _gpu_memory(self, moment: float) -> str:
        """Memory in use on each GPU, asked for now and then; '' without one."""
        if moment - self._gpu_asked >= GPU_SECONDS:
            self._gpu_asked = moment
            shown = ", ".join(f"{used:.1f}/{total:.0f}" for used, total in environment.gpu_memory())
            self._gpu = f"  GPU {shown} GiB" if shown else ""
        return self._gpu


class Passes:
    """Turns counts of rows into words, so that a bar which begins again reads as one that does."""

    def __init__(self) -> None:
        self._last = (0, 0)
        self._number = 1

    def said(self, count: tuple[int, int] | None) -> str:
        """`, 12 of 100`; of the rows' second round `, 12 of 100 (pass 2)`, and nothing before its first is done."""
        if count is None:
            return ""
        if count[1] == self._last[1] and count[0] < self._last[0]:
            self._number += 1
        elif count[1] != self._last[1]:
            self._number = 1
        self._last = count
        if self._number == 1:
            return f", {count[0]} of {count[1]}"
        return f", {count[0]} of {count[1]} (pass {self._number})" if count[0] else ""


def rows_done(log: Path) -> tuple[int, int] | None:
    """The last `done/total` in whole numbers that a worker, or a progress bar of transformers, printed."""
    return _last_count(log, r"(?<![\d.])(\d+)/(\d+)(?![\d.])")


def _before_a_loss(log: Path) -> str:
    """What a training does whose first loss is not logged yet: it loads, or is at a step of a bar without a title."""
    steps = _last_count(log, r"(?:^|[\r\n]) *\d+%\|[^|]*\| (\d+)/(\d+) \[")
    return f"step {steps[0]}/{steps[1]}, no loss logged yet" if steps else "loading"


def _last_count(log: Path, pattern: str) -> tuple[int, int] | None:
    import re

    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 512))
            found = re.findall(pattern, file.read().decode("utf-8", "replace"))
    except OSError:
        return None
    return (int(found[-1][0]), int(found[-1][1])) if found else None
