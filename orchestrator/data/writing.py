"""Conversations → the files LLaMA-Factory reads, with nothing left for it to guess."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.data.conversation import SHAREGPT_ROLE, Conversation, Kind
from orchestrator.files import write_text

# Written even when empty, so that dataset_info.json may name these columns: LLaMA-Factory fails on one that is missing.
_ALWAYS: dict[str, Any] = {"conversations": [], "system": "", "tools": ""}


def write_sharegpt(path: Path, conversations: Iterable[Conversation]) -> int:
    """Writes a sharegpt JSON list, whole or not at all, and returns the number of rows.

    Every row has the same columns: `datasets` guesses the schema chunk by chunk and fails when a later chunk differs.
    """
    return _write_list(path, [_ALWAYS | conversation.to_sharegpt() for conversation in conversations])


def write_texts(path: Path, conversations: Iterable[Conversation]) -> int:
    """Writes plain texts for pre-training (`{"text": …}`), whole or not at all, and returns the number of rows."""
    return _write_list(path, [{"text": conversation.prompt} for conversation in conversations])


def write_rows(path: Path, conversations: Iterable[Conversation], kind: Kind) -> int:
    """Writes what a training of that kind reads, and returns the number of rows."""
    return write_texts(path, conversations) if kind == "pt" else write_sharegpt(path, conversations)


def _write_list(path: Path, rows: list[dict[str, Any]]) -> int:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(path, f"[\n{lines}\n]\n" if rows else "[]\n")
    return len(rows)


def dataset_info(entries: Mapping[str, tuple[str, Kind]]) -> dict[str, Any]:
    """Returns the content of dataset_info.json for `{dataset name: (file name, kind)}`.

    Every column and tag is spelled out, because a partial mapping erases LLaMA-Factory's other defaults.
    """
    return {name: _entry(file, kind) for name, (file, kind) in entries.items()}


def _entry(file: str, kind: Kind) -> dict[str, Any]:
    if kind == "pt":
        return {"file_name": file, "formatting": "alpaca", "columns": {"prompt": "text"}}
    pair = {"chosen": "chosen", "rejected": "rejected"} if kind in ("dpo", "rm") else {}
    tag = {"kto_tag": "kto_tag"} if kind == "kto" else {}
    return {
        "file_name": file,
        "formatting": "sharegpt",
        "ranking": kind in ("dpo", "rm"),
        "columns": {"messages": "conversations", "system": "system", "tools": "tools"} | pair | tag,
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": SHAREGPT_ROLE["user"],
            "assistant_tag": SHAREGPT_ROLE["assistant"],
            "observation_tag": SHAREGPT_ROLE["observation"],
            "function_tag": SHAREGPT_ROLE["function_call"],
            "system_tag": SHAREGPT_ROLE["system"],
        },
    }
