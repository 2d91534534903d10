"""What a person sees while stages run: live lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines
from orchestrator.lib.step import Step
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
        if not self._console.is_terminal:
            self._console.print(f"… {step.stage}", highlight=False)
        elif self._live is None:
            self._live = Live(Text(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def tick(self) -> None:
        """Refresh what is shown of the running steps."""
        moment = time.monotonic()
        if self._live is not None:
            lines = [f"… {stage.step.stage:<15} {stage.state(moment)}" for stage in self._running.values()]
            self._live.update(Text("\n".join(lines)))
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


class ShownStage:
    """A stage that runs, as its files tell it."""

    def __init__(self, step: Step, folder: Path) -> None:
        self.step, self.folder = step, folder
        self._started = self._said = self._heard = time.monotonic()
        self._size = -1
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
            entries = read_log(self.folder)
            said = training_line(entries[-1], entries) if entries else f"{elapsed}, loading"
            return f"{said}{self._gpu_memory(moment)}{self._silence(moment)}"
        return f"{elapsed}{_counted(self._log)}{self._silence(moment)}"

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


def training_line(last: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    """Step, loss with its curve, learning rate and time left, in one line."""
    parts = [f"step {last.get('current_steps')}/{last.get('total_steps')}", loss_line(entries)]
    if rate := next((entry["lr"] for entry in reversed(entries) if "lr" in entry), None):
        parts.append(f"lr {rate:.2g}")
    parts += [pace(last), f"{last.get('remaining_time', '?')} left"]
    return "  ".join(part for part in parts if part)


def pace(last: dict[str, Any]) -> str:
    """How fast it goes: steps a second, or seconds a step where that is more than one; '' while nobody knows."""
    try:
        days, _, clock = str(last["elapsed_time"]).rpartition(" day")
        hours, minutes, seconds = (float(part) for part in clock.rpartition(" ")[2].split(":"))
    except (KeyError, ValueError):
        return ""
    elapsed = (float(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds
    steps = last.get("current_steps") or 0
    if not elapsed or not steps:
        return ""
    return f"{elapsed / steps:.1f} s/step" if elapsed > steps else f"{steps / elapsed:.1f} steps/s"


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


def _counted(log: Path) -> str:
    """The last `done/total` in whole numbers that a worker, or a progress bar of transformers, printed."""
    import re

    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 512))
            found = re.findall(r"(?<![\d.])(\d+)/(\d+)(?![\d.])", file.read().decode("utf-8", "replace"))
    except OSError:
        return ""
    return f", {found[-1][0]} of {found[-1][1]}" if found else ""
