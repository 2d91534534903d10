"""One row of any of the field's formats → a Conversation.

The formats are LLaMA-Factory's own (sharegpt, alpaca, openai, preference pairs, KTO, plain text), the shapes trl uses
for pairs, and plain tables with a prompt and an answer column. What LLaMA-Factory would drop, crash on or change
without a word is refused here with a RowError that says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.chat_template.messages import NEXT_RESULT
from orchestrator.data.columns import Format, Row, as_text
from orchestrator.data.conversation import Conversation, Message, Role
from orchestrator.data.react import to_calls
from orchestrator.data.rows import RowError
from orchestrator.data.tools import check_calls, read_calls, read_tools
from orchestrator.evaluation.rows import strip_thinking
from orchestrator.lib.training_kinds import TRAINING_KINDS

_MEDIA = ("images", "image", "videos", "audios")

_ROLES: dict[str, Role] = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "bot": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
    "observation": "observation", "tool": "observation", "function": "observation", "function_response": "observation",
    "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
_YES_NO = {"true": True, "1": True, "yes": True, "是": True, "false": False, "0": False, "no": False, "否": False}


def to_conversation(row: Row, form: Format, source: str, number: int) -> Conversation:
    """Returns row `number` of a source as a Conversation. Raises RowError."""
    if media := next((name for name in _MEDIA if row.get(name)), None):
        raise RowError("media", f"has {media}, but only text can be trained here")
    made = _conversation(row, form, source, number)
    for text in (made.system, made.tools, made.chosen, made.rejected, *[turn.content for turn in made.messages]):
        if not text.isascii():
            _require_whole(text)
    return made


def _conversation(row: Row, form: Format, source: str, number: int) -> Conversation:
    kind = TRAINING_KINDS[form.kind]
    if kind.reads:
        text = Message("user", _filled(form.get(row, "prompt"), "text", "empty_row"))
        return Conversation((text,), source=source, row=number)
    turns, own_system = _turns(row, form)
    turns = to_calls(turns) if form.react else turns
    pair = _pair(row, form) if kind.pairs else ("", "")
    check_turns(turns, ends_with_answer=not any(pair))
    check_calls(turns, tools := read_tools(form.get(row, "tools")))
    tag = _tag(form.get(row, "kto_tag")) if kind.tags else None
    return Conversation(tuple(turns), own_system or form.system, tools, *pair, tag, source, number)


def _require_whole(text: str) -> None:
    """Raise RowError for half a character, which no file can hold: JSON writes one that was cut in two as `\\ud83d`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise RowError(
            "not_text", f"holds half a character (\\u{half:04x}), as a cut through an emoji leaves it"
        ) from None


def _turns(row: Row, form: Format) -> tuple[list[Message], str]:
    column = as_text(form.get(row, "system"), "system")
    if "messages" in form.columns:
        turns = _list(form.get(row, "messages"), form.columns["messages"], "no_turns")
    elif "prompt" in form.columns:
        return _flat_turns(row, form), column
    else:
        turns = _list(form.get(row, "chosen"), "chosen", "missing_pair")[:-1]
    messages = _merge_observations([_message(turn, number) for number, turn in enumerate(turns, start=1)])
    if not messages or messages[0].role != "system":
        return messages, column
    if column and column != messages[0].content:
        raise RowError("two_systems", "the system column and the system message differ: only one would be used")
    return messages[1:], messages[0].content


def _flat_turns(row: Row, form: Format) -> list[Message]:
    turns = _history(form.get(row, "history"))
    parts = [as_text(form.get(row, role), role) for role in ("prompt", "query")]
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
        turns.append(Message("user", as_text(pair[0], "history")))
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
        return Message(role, as_text(_parts(content, number), f"turn {number}"))
    return Message(role, _filled(_parts(content, number), f"turn {number}", "empty_row"))


def _parts(content: Any, number: int) -> Any:
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise RowError("media", f"turn {number} holds more than text, but only text can be trained here")
    return "".join(part["text"] for part in content)


def _tool_calls(calls: Any, content: Any, number: int) -> Message:
    thought = _parts(content, number) or ""
    if not isinstance(thought, str) or strip_thinking(thought):
        raise RowError("tool_call_text", f"turn {number} has text and tool calls: LLaMA-Factory would drop the text")
    try:
        functions = [{"name": c["function"]["name"], "arguments": _parsed(c["function"]["arguments"])} for c in calls]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise RowError("bad_function_call", f"turn {number}: a tool call needs function.name and .arguments") from None
    return Message("function_call", thought + json.dumps(functions, ensure_ascii=False))


def _parsed(value: Any) -> Any:
    # OpenAI sends the arguments as JSON text; LLaMA-Factory would quote that text a second time.
    return json.loads(value) if isinstance(value, str) else value


def _merge_observations(messages: list[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and message.role == merged[-1].role == "observation":
            merged[-1] = Message("observation", merged[-1].content + NEXT_RESULT + message.content)
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
            read_calls(turn.content)
        if turn.role == "user" and not turn.content.strip():
            raise RowError("empty_row", f"turn {number}, the prompt, is empty")
    if (len(turns) % 2 == 0) != ends_with_answer:
        wanted = "with an answer" if ends_with_answer else "with the user, before chosen and rejected"
        raise RowError("odd_turns", f"ends with the turn of the {turns[-1].role}; it must end {wanted}")


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


# ---- values


def _filled(value: Any, name: str, kind: str) -> str:
    text = as_text(value, name)
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
