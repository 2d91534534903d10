"""Has a training lost its numbers? A loss that is none does not come back, and LLaMA-Factory goes on all the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from orchestrator.errors import StageError
from orchestrator.files import read_json, read_json_lines

FIGURES = ("loss", "eval_loss", "grad_norm")
LATEST = 3
"""So many entries in a row decide: with fp16 a gradient may overflow now and then, and that step is left out."""

Entry = Mapping[str, Any]


class Losses:
    """The log of a training that is still going on."""

    def __init__(self, folder: Path) -> None:
        self._file, self._size = folder / "trainer_log.jsonl", 0

    def look(self) -> None:
        """Raise StageError as soon as the figures in it are no numbers any more; reads it only when it has grown."""
        with contextlib.suppress(OSError):  # not there yet
            if (size := self._file.stat().st_size) != self._size:
                self._size = size
                require_numbers(read_json_lines(self._file, growing=True))


def require_finished(folder: Path) -> None:
    """Raise StageError where a finished training had lost its numbers.

    transformers shows zeros instead of such losses where `logging_nan_inf_filter` is on; the gradients are all there.
    """
    require_numbers(read_json(folder / "trainer_state.json").get("log_history", []))


def require_numbers(entries: Iterable[Entry]) -> None:
    """Raise StageError when the latest entries of a log have a figure that is no number in each of them."""
    history = list(entries)
    for name in FIGURES:
        figures = [entry for entry in history if isinstance(entry.get(name), float)]
        lost = list(takewhile(lambda entry: not math.isfinite(entry[name]), reversed(figures)))  # noqa: B023
        if lost and len(lost) >= min(LATEST, len(figures)):
            step = lost[-1].get("step", lost[-1].get("current_steps"))
            raise StageError(
                f"training diverged: {name} became {lost[-1][name]} at step {step}", "Lower train.learning_rate."
            )
