"""Did a training keep its numbers: in its log while it goes on, and in its weights? They are read without torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib.errors import Diverged, StageError
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.models.weights import header

if TYPE_CHECKING:
    import numpy as np

FIGURES = ("loss", "eval_loss", "grad_norm")
LATEST = 3
"""So many entries in a row decide: with fp16 a gradient may overflow now and then, and that step is left out."""
HINT = "Lower train.learning_rate."
EXPONENT = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("<u1", 0x7C),
    "F8_E4M3": ("<u1", 0x7F),
}
"""Type of a tensor → its bits as an integer, and those that are all set in an infinity or a NaN (IEEE 754; of an E4M3,
which has no infinity, in a NaN: Micikevicius et al., FP8 Formats for Deep Learning, 2022). Others are always finite."""
AT_ONCE = 1 << 22
"""Weights looked at in one go: a few dozen MB of memory."""


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
        hint = f"Run the same command again with --force {stage}, which makes it again."
        raise StageError(f"training left weights that cannot be read: {error}", hint) from None
    if lost:
        raise Diverged(
            f"training diverged: weights that are not finite in {lost.file} ({lost.weights} of {lost.tensor})", HINT
        )


def require_numbers(entries: Iterable[Mapping[str, Any]]) -> None:
    """Raise Diverged when the latest entries of a log have a figure that is no number in each of them."""
    history = list(entries)
    for name in FIGURES:
        figures = [entry for entry in history if isinstance(entry.get(name), float)]
        lost = list(takewhile(lambda entry: not math.isfinite(entry[name]), reversed(figures)))  # noqa: B023
        if lost and len(lost) >= min(LATEST, len(figures)):
            step = lost[-1].get("step", lost[-1].get("current_steps"))
            raise Diverged(f"training diverged: {name} became {lost[-1][name]} at step {step}", HINT)


@dataclass(frozen=True, slots=True)
class Lost:
    """A tensor with weights that are no numbers."""

    file: str
    tensor: str
    weights: int
    """So many of them."""


def first_lost(folder: Path) -> Lost | None:
    """The first tensor of a folder's safetensors files that has a NaN or an infinity in it; None for sound weights.

    Raises ValueError, naming the file, for one that is no safetensors file.
    """
    found = (lost for file in sorted(folder.glob("*.safetensors")) for lost in _lost(file))
    return next(found, None)


def _lost(file: Path) -> Iterator[Lost]:
    import numpy as np

    start, entries = header(file)
    content = np.memmap(file, np.uint8, "r") if entries else np.zeros(0, np.uint8)
    for name, entry in entries.items():
        kind, mask = EXPONENT.get(entry["dtype"], ("", 0))
        begin, end = entry["data_offsets"]
        if kind and (count := _count(content[start + begin : start + end].view(kind), mask)):
            yield Lost(file.name, name, count)


def _count(bits: np.ndarray, mask: int) -> int:
    parts = (bits[at : at + AT_ONCE] for at in range(0, len(bits), AT_ONCE))
    return sum(int(((part & part.dtype.type(mask)) == mask).sum()) for part in parts)
