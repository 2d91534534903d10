"""How far a training is, as LLaMA-Factory's trainer_log.jsonl and the checkpoints tell: curves, pace, time left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines

BARS = "▁▂▃▄▅▆▇█"


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
    saved = layout.checkpoints(folder / layout.TRAINED)
    return next((path.name for path in reversed(saved) if (path / "trainer_state.json").is_file()), "")


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
