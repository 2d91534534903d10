"""Conversations → the files LLaMA-Factory reads, with nothing left for it to guess."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from orchestrator.data.conversation import Conversation, Kind
from orchestrator.files import write_text


def write_rows(path: Path, conversations: Iterable[Conversation], kind: Kind = "sft") -> None:
    """Writes a JSON list, whole or not at all: plain texts for pre-training (`{"text": …}`), else sharegpt."""
    rows = ({"text": row.prompt} if kind == "pt" else row.to_sharegpt() for row in conversations)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(path, f"[\n{lines}\n]\n" if lines else "[]\n")
