"""Copies of a GGUF with another chat template, another BOS, or another number in its metadata."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = "tokenizer.chat_template"
TOKENS = "tokenizer.ggml.tokens"
_read: dict[str, Any] = {}


def with_template(source: Path, target: Path, jinja: str, bos: str | None = None) -> Path:
    """A copy with another chat template; with `bos`, the begin token reads so, and llama.cpp puts it in front.

    Texts may be longer or shorter: the tensors move, and their offsets count from where they start.
    """
    reader, data = read(source), source.read_bytes()
    fields = reader.fields
    changes = [_text(fields[TEMPLATE], fields[TEMPLATE].data[0], jinja)]
    if bos is not None:
        token = int(fields["tokenizer.ggml.bos_token_id"].parts[-1][0])
        changes.append(_text(fields[TOKENS], fields[TOKENS].data[token], bos))
        flag = fields["tokenizer.ggml.add_bos_token"]
        changes.append((_end(flag, len(flag.parts)) - 1, _end(flag, len(flag.parts)), b"\1"))
    last = reader.tensors[-1].field
    header = data[: _end(last, len(last.parts))]
    for start, end, new in sorted(changes, reverse=True):
        header = header[:start] + new + header[end:]
    padding = b"\0" * (-len(header) % reader.alignment)
    target.write_bytes(header + padding + data[reader.data_offset :])
    return target


def with_number(source: Path, target: Path, key: str, value: int, place: int = 0) -> Path:
    """A copy with another number under a key, or at a place of a list."""
    field, data = read(source).fields[key], bytearray(source.read_bytes())
    part = field.data[place]
    number = np.array([value], field.parts[part].dtype).tobytes()
    data[_end(field, part) : _end(field, part + 1)] = number
    target.write_bytes(data)
    return target


def read(file: Path) -> Any:
    """A GGUF's reader, one for each content: it takes seconds over a vocabulary."""
    from gguf import GGUFReader

    content = hashlib.sha256(file.read_bytes()).hexdigest()
    if content not in _read:
        _read[content] = GGUFReader(file)
    return _read[content]


def _text(field: Any, part: int, text: str) -> tuple[int, int, bytes]:
    """What replaces a text, which follows its length: start, end and the new bytes."""
    value = text.encode()
    return _end(field, part - 1), _end(field, part + 1), struct.pack("<Q", len(value)) + value


def _end(field: Any, parts: int) -> int:
    """Where the first parts of a field end, in bytes."""
    return int(field.offset + sum(part.nbytes for part in field.parts[:parts]))
