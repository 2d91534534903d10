"""What a person sees while stages run: live lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines
from orchestrator.lib.step import Step
from orchestrator.lib.translate import localised
from orchestrator.machine import environment

BARS = "▁▂▃▄▅▆▇█"
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
        return f"{elapsed}{self._passes.said(counted(self._log))}{self._silence(moment)}"

    def result(self) -> str:
        """What a stage that has ended came to, where that can be said in few words."""
        if self.step.stage == "train":
            return loss_line(read_log(self.folder))
        return _last_line(self._log) if self.step.stage == "keep" else ""

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


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of LLaMA-Factory's trainer_log.jsonl so far; a line that is being written is left out."""
    try:
        return read_json_lines(folder / layout.TRAINED / "trainer_log.jsonl", growing=True)
    except OSError:
        return []


def curve(entries: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Step and value of the entries that have the value, such as `loss`, `eval_loss` or `lr`; finite ones only."""
    return [(entry["current_steps"], entry[key]) for entry in entries if _is_finite(entry.get(key))]


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def resumed_from(argv: Sequence[str]) -> str:
    """The checkpoint that a training goes on from, such as `checkpoint-19`; '' for one that begins."""
    given = next((word for word in argv if word.startswith("resume_from_checkpoint=")), "")
    return Path(given.partition("=")[2]).name


def resumed_step(argv: Sequence[str]) -> int:
    """The step that a training goes on from; 0 for one that begins."""
    number = resumed_from(argv).rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def newest(folder: Path) -> str:
    """The name of a run's newest checkpoint; '' where there is none."""
    found = (file.parent for file in (folder / layout.TRAINED).glob("checkpoint-*/trainer_state.json"))
    numbered = [path for path in found if path.name.rpartition("-")[2].isdecimal()]
    return max(numbered, key=lambda path: int(path.name.rpartition("-")[2])).name if numbered else ""


def to_go_on_from(checkpoint: str) -> str:
    """What the same command would do to a training that has not ended."""
    if not checkpoint:
        return "no checkpoint was written yet: the training would begin again"
    return f"{checkpoint} is kept: the same command goes on from there"


def training_line(last: dict[str, Any], entries: list[dict[str, Any]], start: int = 0) -> str:
    """Step, loss with its curve, learning rate, pace and time left, in one line; `start` is the step begun with.

    Pace and time left are of the steps that this process has made: LLaMA-Factory counts those before a checkpoint as
    if they had cost no time.
    """
    parts = [f"step {last.get('current_steps')}/{last.get('total_steps')}", loss_line(entries)]
    if rate := next((entry["lr"] for entry in reversed(entries) if "lr" in entry), None):
        parts.append(f"lr {rate:.2g}")
    left = seconds_left(last, start)
    parts += [pace(last, start), "" if left is None else f"{timedelta(seconds=round(left))} left"]
    return "  ".join(part for part in parts if part)


def short_line(last: Mapping[str, Any]) -> str:
    """Step and loss of an entry of the log, for a line that has more to say."""
    loss = last.get("loss")
    shown = f"  loss {loss:.3f}" if isinstance(loss, (int, float)) else ""
    return f"step {last.get('current_steps')}/{last.get('total_steps')}{shown}"


def pace(last: Mapping[str, Any], start: int = 0) -> str:
    """How fast it goes: steps a second, or seconds a step where that is more than one; '' while nobody knows."""
    each = seconds_a_step(last, start)
    if each is None:
        return ""
    return f"{each:.1f} s/step" if each > 1 else f"{1 / each:.1f} steps/s"


def seconds_a_step(last: Mapping[str, Any], start: int = 0) -> float | None:
    """The mean over the steps from `start` on, by an entry of the log; None before any was measured."""
    try:
        days, _, clock = str(last["elapsed_time"]).rpartition(" day")
        hours, minutes, seconds = (float(part) for part in clock.rpartition(" ")[2].split(":"))
    except (KeyError, ValueError):
        return None
    elapsed = (float(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds
    made = (last.get("current_steps") or 0) - start
    return elapsed / made if elapsed and made > 0 else None


def seconds_left(last: Mapping[str, Any], start: int = 0) -> float | None:
    """How long the rest will take at the mean pace so far; None before any step was measured."""
    each, total = seconds_a_step(last, start), last.get("total_steps")
    return None if each is None or not total else each * max(0, total - last["current_steps"])


def loss_line(entries: list[dict[str, Any]]) -> str:
    """The latest loss and a small curve of those before it; '' without any."""
    losses = [entry["loss"] for entry in entries if isinstance(entry.get("loss"), (int, float))]
    return f"loss {losses[-1]:.3f} {sparkline(losses)}" if losses else ""


def sparkline(values: list[float], width: int = 24) -> str:
    """Values as a row of small bars, the highest one full; what is no number has none."""
    shown = [value for value in values[-width:] if math.isfinite(value)]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in shown)


def _last_line(log: Path) -> str:
    try:
        return (log.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
    except OSError:
        return ""


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


def counted(log: Path) -> tuple[int, int] | None:
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
