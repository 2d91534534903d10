"""Has a training lost its numbers? A loss that is none does not come back, and LLaMA-Factory goes on all the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from orchestrator.errors import Diverged, StageError
from orchestrator.files import read_json, read_json_lines
from orchestrator.models.finite import first_lost

FIGURES = ("loss", "eval_loss", "grad_norm")
LATEST = 3
"""So many entries in a row decide: with fp16 a gradient may overflow now and then, and that step is left out."""
HINT = "Lower train.learning_rate."

Entry = Mapping[str, Any]


class Losses:
    """The log of a training that is still going on."""

    def __init__(self, folder: Path) -> None:
        self._file, self._size = folder / "trainer_log.jsonl", 0

    def look(self) -> None:
        """Raise Diverged as soon as the figures in it are no numbers any more; reads it only when it has grown."""
        with contextlib.suppress(OSError):  # not there yet
            if (size := self._file.stat().st_size) != self._size:
                self._size = size
                require_numbers(read_json_lines(self._file, growing=True))


def require_finished(folder: Path) -> None:
    """Raise Diverged where a finished training had lost its numbers: in its log, over all its steps, or in its weights.

    transformers shows zeros instead of such losses where `logging_nan_inf_filter` is on; the gradients are all there.
    What is logged now and then may miss the steps that mattered; `train_loss` is the mean over all of them.
    """
    require_numbers(read_json(folder / "trainer_state.json").get("log_history", []))
    mean = read_json(folder / "all_results.json").get("train_loss", 0.0)
    if not math.isfinite(mean):
        raise Diverged(f"training diverged: the mean loss over all steps is {mean}", HINT)
    require_finite(folder)


def require_finite(folder: Path) -> None:
    """Raise Diverged where a weight in a folder is no number, StageError where the weights cannot be read."""
    try:
        lost = first_lost(folder)
    except ValueError as error:
        stage = "train"
        hint = f"Run the same command again with --force {stage}, which makes it anew."
        raise StageError(f"training left weights that cannot be read: {error}", hint) from None
    if lost:
        raise Diverged(
            f"training diverged: weights that are not finite in {lost.file} ({lost.weights} of {lost.tensor})", HINT
        )


def require_numbers(entries: Iterable[Entry]) -> None:
    """Raise Diverged when the latest entries of a log have a figure that is no number in each of them."""
    history = list(entries)
    for name in FIGURES:
        figures = [entry for entry in history if isinstance(entry.get(name), float)]
        lost = list(takewhile(lambda entry: not math.isfinite(entry[name]), reversed(figures)))  # noqa: B023
        if lost and len(lost) >= min(LATEST, len(figures)):
            step = lost[-1].get("step", lost[-1].get("current_steps"))
            raise Diverged(f"training diverged: {name} became {lost[-1][name]} at step {step}", HINT)
