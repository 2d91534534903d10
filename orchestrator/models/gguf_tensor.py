"""One matrix out of a GGUF, its quantisation undone; all others stay on the disk.

The gguf package's own reader makes an array of every token of the vocabulary first, which takes seconds to minutes.
The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.models.mixture import Matrix

MAGIC = b"GGUF"
ALIGNMENT = 32
"""Where the metadata names none (`general.alignment`)."""
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Kind of a metadata value → bytes; 8 is a text, 9 an array."""
TEXT, ARRAY, UINT32 = 8, 9, 4


def matrix(file: Path, name: str) -> Any:
    """The matrix as float32 of shape (outputs, inputs), or None where the file has none of that name.

    Raises ValueError for what is no GGUF.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    found = _places(file).get(name)
    if found is None:
        return None
    import numpy as np

    kind = GGMLQuantizationType(found.kind)
    block, size = GGML_QUANT_SIZES[kind]
    bytes_a_row = found.shape[0] // block * size
    rows = found.shape[1] if len(found.shape) > 1 else 1
    raw = np.fromfile(file, dtype=np.uint8, count=rows * bytes_a_row, offset=found.offset).reshape(rows, bytes_a_row)
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return raw.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16).astype(np.float32)
    return dequantize(raw, kind)


@dataclass(frozen=True, slots=True)
class _Place:
    shape: tuple[int, ...]
    """Fastest first, as ggml has it."""
    kind: int
    offset: int
    """Bytes from the start of the file."""


def matrices(file: Path) -> list[Matrix]:
    """All tensors of a file, in its order. Raises ValueError for what is no GGUF."""
    from gguf import GGMLQuantizationType

    found = _places(file).items()
    return [Matrix(name, at.shape, GGMLQuantizationType(at.kind).name.lower()) for name, at in found]


def _places(file: Path) -> dict[str, _Place]:
    with file.open("rb") as stream:
        magic, _, tensors, values = struct.unpack("<4sIQQ", stream.read(24))
        if magic != MAGIC:
            raise ValueError(f"{file} is no GGUF")
        alignment = ALIGNMENT
        for _ in range(values):
            key, (kind,) = _text(stream), struct.unpack("<I", stream.read(4))
            alignment = _skip(stream, kind, key == b"general.alignment") or alignment
        found = {}
        for _ in range(tensors):
            key, (dimensions,) = _text(stream), struct.unpack("<I", stream.read(4))
            *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", stream.read(8 * dimensions + 12))
            found[key.decode()] = _Place(tuple(shape), kind, offset)
        start = -(-stream.tell() // alignment) * alignment
    return {name: _Place(at.shape, at.kind, start + at.offset) for name, at in found.items()}


def _text(stream: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", stream.read(8))
    return stream.read(length)


def _skip(stream: BinaryIO, kind: int, wanted: bool = False) -> int | None:
    """Pass over a value; returns a wanted uint32."""
    if kind == TEXT:
        _text(stream)
    elif kind == ARRAY:
        of, count = struct.unpack("<IQ", stream.read(12))
        if of in SIZES:
            stream.seek(SIZES[of] * count, 1)
        else:
            for _ in range(count):
                _skip(stream, of)
    elif kind in SIZES:
        value = stream.read(SIZES[kind])
        return int(struct.unpack("<I", value)[0]) if wanted and kind == UINT32 else None
    else:
        raise ValueError(f"a GGUF value of unknown kind {kind}")
    return None
