"""Copies of a GGUF with another chat template, or another BOS."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

TEMPLATE = "tokenizer.chat_template"
TOKENS = "tokenizer.ggml.tokens"


def with_template(source: Path, target: Path, jinja: str, bos: str | None = None) -> Path:
    """A copy with another chat template; with `bos`, the begin token reads so, and llama.cpp puts it in front.

    Texts may be longer or shorter: the tensors move, and their offsets count from where they start.
    """
    from gguf import GGUFReader

    reader, data = GGUFReader(source), source.read_bytes()
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


def _text(field: Any, part: int, text: str) -> tuple[int, int, bytes]:
    """What replaces a text, which follows its length: start, end and the new bytes."""
    value = text.encode()
    return _end(field, part - 1), _end(field, part + 1), struct.pack("<Q", len(value)) + value


def _end(field: Any, parts: int) -> int:
    return int(field.offset + sum(part.nbytes for part in field.parts[:parts]))
