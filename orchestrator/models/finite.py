"""Are all weights numbers? Safetensors files are looked through where they lie, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.models.shape import header

if TYPE_CHECKING:
    import numpy as np

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
