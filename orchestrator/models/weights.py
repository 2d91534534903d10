"""Safetensors files by their headers: eight bytes of length, then JSON, then the tensors one behind the other
(https://github.com/huggingface/safetensors, format). No weight is read, and no numpy is imported for it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit. A Git LFS pointer in place of a model would ask for far more."""


def header(file: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the weights of a safetensors file begin, and what is said of each tensor.

    Raises ValueError, naming the file, for any other.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            found: Any = json.loads(stream.read(length)) if length <= MAX_HEADER else None
        return 8 + length, {name: entry for name, entry in found.items() if name != "__metadata__"}
    except (struct.error, ValueError, AttributeError):
        raise ValueError(f"{file.name} is no safetensors file") from None


def damaged(folder: Path) -> Iterator[tuple[str, Exception]]:
    """Each safetensors file that is not as long as its header says, and what is wrong with it."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            _require_whole(file)
        except (OSError, ValueError) as error:
            yield file.name, error


def _require_whole(file: Path) -> None:
    start, entries = header(file)
    try:
        said = start + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (TypeError, LookupError):
        raise ValueError("its header does not say where its tensors are") from None
    if (size := file.stat().st_size) != said:
        raise ValueError(f"it has {size:,} bytes, and by its header {said:,}")
