"""Which of the field's formats a row is in, and its translation into a Conversation.

The formats are LLaMA-Factory's own (sharegpt, alpaca, openai, preference pairs, KTO, plain text), the shapes trl uses
for pairs, and plain tables with a prompt and an answer column. What LLaMA-Factory would drop, crash on or change
without a word is refused here with a RowError that says why.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.data.conversation import Conversation, Kind, Message, Role
from orchestrator.errors import InputError

Row = Mapping[str, Any]

# The keys of `data.columns`: LLaMA-Factory's names for what a column can hold.
COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected", "kto_tag",
)  # fmt: skip
_OWN_NAME = ("history", "system", "tools", "chosen", "rejected")  # found under no other name than their own
_MESSAGES = ("conversations", "messages", "conversation", "dialog")
_PROMPTS = ("instruction", "prompt", "question", "query", "input", "text", "title", "指令", "问题", "标题", "文本")
_ANSWERS = ("output", "response", "completion", "answer", "label", "category", "target", "答案", "回答", "标签", "类别")
_TEXTS = ("text", "content", "prompt", "正文", "文本", "内容")
_TAGS = ("kto_tag", "label", "desirable")
_MEDIA = ("images", "image", "videos", "audios")

_ROLES: dict[str, Role] = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "bot": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
    "observation": "observation", "tool": "observation", "function": "observation", "function_response": "observation",
    "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
_YES_NO = {"true": True, "1": True, "yes": True, "是": True, "false": False, "0": False, "no": False, "否": False}
# What LLaMA-Factory puts between the answers of several tools in one turn.
_NEXT_OBSERVATION = "\n</tool_response>\n<tool_response>\n"


_FIELD = re.compile(r"\{([^{}]+)\}")


class RowError(Exception):
    """A row that must not reach training. `kind` is a stable word, the message a sentence for a person."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Format:
    """The name of a format, and which column of the file holds what (a subset of COLUMNS).

    Instead of a column there may be a text with columns in it, such as `News category: {title}`. Rows without a system
    text get `system`.
    """

    name: str
    columns: Mapping[str, str]
    kind: Kind = "sft"
    system: str = ""

    def get(self, row: Row, role: str) -> Any:
        """The value of the column with that role, or None where the file or the row has none."""
        column = self.columns.get(role, "")
        return _fill(column, row) if "{" in column else row.get(column)


# ---- which format


def detect_format(rows: Sequence[Row], kind: Kind = "sft", columns: Mapping[str, str] | None = None) -> Format:
    """Returns the format of the first rows of a file; `columns` (role → column) overrules what the names suggest.

    Raises InputError when a column named does not exist, or none looks like a prompt or an answer.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    chosen = _check_columns(columns or {}, keys)
    found = {role: role for role in COLUMNS if role in _OWN_NAME and role in keys}
    if kind == "kto":
        found |= _first("kto_tag", _TAGS, keys)
    if kind == "pt":
        return Format("text", _required(_first("prompt", _TEXTS, keys) | chosen, ("prompt",), keys), kind)
    if "prompt" not in chosen and (messages := _first("messages", _MESSAGES, keys) | chosen).get("messages"):
        columns = _required(found | messages, _pair_roles(kind), keys)
        return Format(_messages_format(rows, columns["messages"]), columns, kind)
    return _flat_format(found, chosen, keys, kind)


def _flat_format(found: dict[str, str], chosen: dict[str, str], keys: list[str], kind: Kind) -> Format:
    if kind in ("dpo", "rm") and "prompt" not in chosen and not any(name in keys for name in _PROMPTS):
        return Format("pairs", _required(found | chosen, _pair_roles(kind), keys), kind)
    columns = found | _first("prompt", _PROMPTS, keys)
    if "input" in keys and columns.get("prompt") == "instruction":
        columns["query"] = "input"
    needed: tuple[str, ...] = ("prompt", *_pair_roles(kind))
    if kind not in ("dpo", "rm"):  # there LLaMA-Factory reads the pair and ignores an output beside it
        taken = {*columns.values(), *chosen.values()}
        columns |= _first("response", _ANSWERS, [key for key in keys if key not in taken])
        needed += ("response",)
    name = "alpaca" if columns.get("prompt") == "instruction" else "table"
    return Format(name, _required(columns | chosen, needed, keys), kind)


def _pair_roles(kind: Kind) -> tuple[str, ...]:
    return {"dpo": ("chosen", "rejected"), "rm": ("chosen", "rejected"), "kto": ("kto_tag",)}.get(kind, ())


def _check_columns(columns: Mapping[str, str], keys: Collection[str]) -> dict[str, str]:
    if unknown := next((role for role in columns if role not in COLUMNS), None):
        raise InputError(f"data.columns: unknown key {unknown!r}", f"use one of {', '.join(COLUMNS)}")
    named = [name for value in columns.values() for name in (_FIELD.findall(value) if "{" in value else [value])]
    if missing := next((name for name in named if name not in keys), None):
        raise InputError(f"there is no column {missing!r}", f"the columns are {', '.join(map(repr, keys))}")
    return dict(columns)


def _first(role: str, names: Iterable[str], keys: Collection[str]) -> dict[str, str]:
    return next(({role: name} for name in names if name in keys), {})


def _required(columns: dict[str, str], roles: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    for role in roles:
        if role not in columns:
            hint = f"name it in the spec: data: {{columns: {{{role}: COLUMN}}}}"
            raise InputError(f"no column looks like the {role} among {', '.join(map(repr, keys))}", hint)
    return columns


def _messages_format(rows: Sequence[Row], column: str) -> str:
    for row in rows:
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return "openai" if "role" in turns[0] else "sharegpt"
    return "sharegpt"


# ---- one row


def to_conversation(row: Row, form: Format, source: str, number: int) -> Conversation:
    """Returns row `number` of a source as a Conversation. Raises RowError."""
    if media := next((name for name in _MEDIA if row.get(name)), None):
        raise RowError("media", f"has {media}, but only text can be trained here")
    if form.kind == "pt":
        text = Message("user", _filled(form.get(row, "prompt"), "text", "empty_row"))
        return Conversation((text,), source=source, row=number)
    turns, own_system = _turns(row, form)
    pair = _pair(row, form) if form.kind in ("dpo", "rm") else ("", "")
    check_turns(turns, ends_with_answer=not any(pair))
    return Conversation(
        tuple(turns),
        own_system or form.system,
        _tools(form.get(row, "tools")),
        *pair,
        desirable=_tag(form.get(row, "kto_tag")) if form.kind == "kto" else None,
        source=source,
        row=number,
    )


def _turns(row: Row, form: Format) -> tuple[list[Message], str]:
    column = optional_text(form.get(row, "system"), "system")
    if form.name == "pairs":
        turns = _list(form.get(row, "chosen"), "chosen", "missing_pair")[:-1]
    elif "messages" in form.columns:
        turns = _list(form.get(row, "messages"), form.columns["messages"], "no_turns")
    else:
        return _flat_turns(row, form), column
    messages = _merge_observations([_message(turn, number) for number, turn in enumerate(turns, start=1)])
    if not messages or messages[0].role != "system":
        return messages, column
    if column and column != messages[0].content:
        raise RowError("two_systems", "the system column and the system message differ: only one would be used")
    return messages[1:], messages[0].content


def _flat_turns(row: Row, form: Format) -> list[Message]:
    turns = _history(form.get(row, "history"))
    parts = [optional_text(form.get(row, role), role) for role in ("prompt", "query")]
    turns.append(Message("user", "\n".join(part for part in parts if part)))
    if "response" in form.columns:
        answer = form.get(row, "response")
        turns.append(Message("assistant", _filled(answer, form.columns["response"], "empty_row")))
    return turns


def _history(value: Any) -> list[Message]:
    turns: list[Message] = []
    for pair in _list(value, "history", "bad_history") if value else []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("bad_history", "history must be a list of [question, answer] pairs")
        turns.append(Message("user", optional_text(pair[0], "history")))
        turns.append(Message("assistant", _filled(pair[1], "history", "empty_row")))
    return turns


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise RowError("not_an_object", f"turn {number} must have a role and a text, not be {turn!r:.40}")
    name = turn.get("from", turn.get("role"))
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise RowError("unknown_role", f"turn {number} has the role {name!r}; use user, assistant, system, observation")
    content = turn.get("value", turn.get("content"))
    if calls := turn.get("tool_calls"):
        return _tool_calls(calls, content, number)
    if turn.get("reasoning_content"):
        raise RowError("reasoning_text", f"turn {number}: LLaMA-Factory drops reasoning_content; use <think>…</think>")
    if role in ("system", "observation"):  # the only ones that may say nothing
        return Message(role, optional_text(_parts(content, number), f"turn {number}"))
    return Message(role, _filled(_parts(content, number), f"turn {number}", "empty_row"))


def _parts(content: Any, number: int) -> Any:
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise RowError("media", f"turn {number} holds more than text, but only text can be trained here")
    return "".join(part["text"] for part in content)


def _tool_calls(calls: Any, content: Any, number: int) -> Message:
    if content:
        raise RowError("tool_call_text", f"turn {number} has text and tool calls: LLaMA-Factory would drop the text")
    try:
        functions = [{"name": c["function"]["name"], "arguments": _parsed(c["function"]["arguments"])} for c in calls]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise RowError("bad_function_call", f"turn {number}: a tool call needs function.name and .arguments") from None
    return Message("function_call", json.dumps(functions, ensure_ascii=False))


def _parsed(value: Any) -> Any:
    # OpenAI sends the arguments as JSON text; LLaMA-Factory would quote that text a second time.
    return json.loads(value) if isinstance(value, str) else value


def _merge_observations(messages: list[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and message.role == merged[-1].role == "observation":
            merged[-1] = Message("observation", merged[-1].content + _NEXT_OBSERVATION + message.content)
        else:
            merged.append(message)
    return merged


# ---- the rules of LLaMA-Factory's converters


def check_turns(turns: Sequence[Message], *, ends_with_answer: bool = True) -> None:
    """Raises RowError unless user (observation) and assistant (function_call) take turns and the last one fits."""
    if not turns:
        raise RowError("no_turns", "has no turns")
    for number, turn in enumerate(turns, start=1):
        expected = ("user", "observation") if number % 2 else ("assistant", "function_call")
        if turn.role not in expected:
            raise RowError("role_order", f"turn {number} is {turn.role}, expected {expected[0]}: roles must alternate")
        if turn.role == "function_call":
            _check_function_call(turn.content)
        if turn.role == "user" and not turn.content.strip():
            raise RowError("empty_row", f"turn {number}, the prompt, is empty")
    if (len(turns) % 2 == 0) != ends_with_answer:
        wanted = "with an answer" if ends_with_answer else "with the user, before chosen and rejected"
        raise RowError("odd_turns", f"ends with the turn of the {turns[-1].role}; it must end {wanted}")


def _check_function_call(content: str) -> None:
    try:
        calls = json.loads(content)
        for call in calls if isinstance(calls, list) else [calls]:
            call["name"], call["arguments"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RowError("bad_function_call", "a function_call turn must be JSON with name and arguments") from None


def _pair(row: Row, form: Format) -> tuple[str, str]:
    chosen, rejected = (_one_answer(form.get(row, role), role) for role in ("chosen", "rejected"))
    if chosen == rejected:
        raise RowError("same_pair", "chosen and rejected are the same text: nothing to prefer")
    return chosen, rejected


def _one_answer(value: Any, role: str) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, dict):
        message = _message(value, 1)
        if message.role != "assistant":
            raise RowError("role_order", f"{role} is a turn of the {message.role}, expected assistant")
        return message.content
    return _filled(value, role, "missing_pair")


def _tag(value: Any) -> bool:
    tag = _YES_NO.get(str(value).strip().lower())
    if tag is None:
        raise RowError("missing_tag", f"kto_tag must be true or false, not {value!r:.40}")
    return tag


def _tools(value: Any) -> str:
    if value is None or value == "" or value == []:
        return ""
    try:
        tools = json.loads(value) if isinstance(value, str) else value
        for tool in tools:
            tool.get("function", tool)["name"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RowError("bad_tools", "tools must be a JSON list of objects with a name") from None
    return json.dumps(tools, ensure_ascii=False)


# ---- values


def _fill(template: str, row: Row) -> str:
    values = {name: optional_text(row.get(name), name).strip() for name in _FIELD.findall(template)}
    return _FIELD.sub(lambda match: values[match[1]], template) if any(values.values()) else ""


def as_text(value: Any) -> str | None:
    """Returns a number or a truth value as the text a person wrote, text as it is, and None for what says nothing.

    LLaMA-Factory drops or crashes on answers that are not text. Raises RowError for lists and objects.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list | dict | tuple | bytes):
        raise RowError("not_text", f"holds {type(value).__name__} where text is expected")
    return str(value)


def optional_text(value: Any, name: str) -> str:
    """Like as_text, with '' for nothing, and the name of the place in the message."""
    try:
        return as_text(value) or ""
    except RowError as error:
        raise RowError(error.kind, f"{name} {error.message}") from None


def _filled(value: Any, name: str, kind: str) -> str:
    text = optional_text(value, name)
    if not text.strip():
        raise RowError(kind, f"{name} is empty")
    return text


def _list(value: Any, name: str, kind: str) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a list in a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError(kind, f"{name} is not a JSON list") from None
    if not isinstance(value, list):
        raise RowError(kind, f"{name} must be a list, not {type(value).__name__}")
    return value
