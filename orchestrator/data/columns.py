"""Which column of a file holds what: found by the names people use, or named in the spec."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.data.conversation import Kind
from orchestrator.data.rows import RowError
from orchestrator.lib.errors import InputError
from orchestrator.lib.training_kinds import TRAINING_KINDS, TrainingKind

Row = Mapping[str, Any]

# The keys of `data.columns`, LLaMA-Factory's names for what a column can hold → the names it is found under.
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("instruction", "prompt", "question", "query", "input", "text", "title", "指令", "问题", "标题", "文本"),
    "query": ("input",),
    "response": (
        "output", "response", "completion", "answer", "label", "category", "target", "答案", "回答", "标签", "类别",
    ),
    "history": ("history",),
    "messages": ("conversations", "messages", "conversation", "dialog"),
    "system": ("system",),
    "tools": ("tools",),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "kto_tag": ("kto_tag", "label", "desirable"),
}  # fmt: skip
_TEXTS = ("text", "content", "prompt", "正文", "文本", "内容")  # of a pretraining
_ANYWHERE = ("history", "system", "tools", "chosen", "rejected")  # taken wherever they are found
_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Format:
    """Which column of a file holds what: a subset of COLUMN_NAMES → column.

    Instead of a column there may be a text with columns in it, such as `News category: {title}`. Rows without a system
    text get `system`.
    """

    columns: Mapping[str, str]
    kind: Kind = "sft"
    system: str = ""
    react: bool = False
    """Whether actions in the text of answers become calls."""

    def get(self, row: Row, role: str) -> Any:
        """The value of the column with that role, or None where the file or the row has none."""
        column = self.columns.get(role)
        if column is None:
            return None
        return _fill(column, row) if "{" in column else row.get(column)


def detect_format(
    rows: Sequence[Row], kind: Kind = "sft", columns: Mapping[str, str] | None = None, system: str = ""
) -> Format:
    """Returns the format of the first rows of a file; `columns` (role → column) overrides what the names suggest.

    Raises InputError when a column named does not exist, or none looks like a prompt or an answer.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    found = _named(columns or {}, keys)
    needed, reads = _needed(TRAINING_KINDS[kind], found, keys), TRAINING_KINDS[kind].reads
    for role in needed if reads else (*_ANYWHERE, *needed):
        names = _TEXTS if reads else COLUMN_NAMES[role]
        free = set(keys).difference(found.values())
        if role not in found and (name := next((name for name in names if name in free), None)):
            found[role] = name
    if found.get("prompt") == "instruction" and "input" in set(keys).difference(found.values()):
        found.setdefault("query", "input")
    if lacking := next((role for role in needed if role not in found), None):
        hint = f"name it in the spec: data: {{columns: {{{lacking}: COLUMN}}}}"
        raise InputError(f"no column looks like the {lacking} among {', '.join(map(repr, keys))}", hint)
    return Format(found, kind, system)


def _named(columns: Mapping[str, str], keys: Collection[str]) -> dict[str, str]:
    if unknown := next((role for role in columns if role not in COLUMN_NAMES), None):
        raise InputError(f"data.columns: unknown key {unknown!r}", f"use one of {', '.join(COLUMN_NAMES)}")
    named = [name for value in columns.values() for name in (_FIELD.findall(value) if "{" in value else [value])]
    if missing := next((name for name in named if name not in keys), None):
        raise InputError(f"there is no column {missing!r}", f"the columns are {', '.join(map(repr, keys))}")
    return dict(columns)


def _needed(kind: TrainingKind, named: Collection[str], keys: Collection[str]) -> tuple[str, ...]:
    """The roles that must have a column, in the order in which they choose it."""

    def has(role: str) -> bool:
        return role in named or any(name in keys for name in COLUMN_NAMES[role])

    if kind.reads:
        return ("prompt",)
    answers = ("chosen", "rejected") if kind.pairs else ("kto_tag",) if kind.tags else ()
    if "prompt" not in named and has("messages"):
        return (*answers, "messages")
    if kind.pairs:  # whole conversations may stand in the pair; an output beside it LLaMA-Factory ignores
        return ("prompt", *answers) if has("prompt") else answers
    return ("prompt", *answers, "response")


def _fill(template: str, row: Row) -> str:
    values = {name: as_text(row.get(name), name).strip() for name in _FIELD.findall(template)}
    return _FIELD.sub(lambda match: values[match[1]], template) if any(values.values()) else ""


def as_text(value: Any, name: str) -> str:
    """Returns a number or a truth value as the text a person wrote, text as it is, and "" for what says nothing.

    LLaMA-Factory drops or crashes on answers that are not text. Raises RowError for lists and objects.
    """
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN is how tables spell nothing
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict | tuple | bytes):
        raise RowError("not_text", f"{name} holds {type(value).__name__} where text is expected")
    return str(value)
