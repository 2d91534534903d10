"""A row's tools and calls in the form that servers write, as it is trained: what is served can then be the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.chat_template.messages import join_calls, split_calls, to_messages
from orchestrator.chat_template.registry import definition, tool_definition
from orchestrator.chat_template.tool_formats import row_refusal, told_to_training
from orchestrator.chat_template.tools import ToolError, canonical_tools
from orchestrator.data.conversation import Conversation, Message
from orchestrator.lib.errors import InputError


def has_tools(row: Conversation) -> bool:
    """Whether a row offers tools or calls some."""
    return bool(row.tools) or any(turn.role in ("observation", "function_call") for turn in row.messages)


def canonical(row: Conversation, template: str) -> Conversation:
    """The row with its tools and calls in the canonical form. Raises InputError for what the template cannot train."""
    if not has_tools(row):
        return row
    shape, tools = definition(template), tool_definition(template)
    try:
        calls = [
            (turn, *split_calls(turn.content, shape.thought_words, tools.call_words))
            for turn in row.messages
            if turn.role == "function_call"
        ]
        offered = canonical_tools(json.loads(row.tools))[0] if row.tools else []
        contents = {id(turn): join_calls(text, made, tools.call_words) for turn, text, made in calls}
    except ToolError as error:
        raise InputError(f"{row.source}, row {row.row}: {error}", "Run `orchestrator data check`.") from None
    reason = row_refusal((tools.format, tools.call_format), offered, [len(made) for _, _, made in calls])
    if any(text for _, text, _ in calls) and not tools.text_beside_calls:
        reason = "LLaMA-Factory reads no text or thought beside a call with this template"
    if reason:
        message = f"{row.source}, row {row.row}: {template!r} cannot train it: {reason}"
        raise InputError(message, "Choose another model.template, such as qwen, or leave such rows out.")
    turns = [Message(turn.role, contents.get(id(turn), turn.content)) for turn in row.messages]
    written = json.dumps(offered, ensure_ascii=False) if offered else ""
    return replace(row, messages=tuple(turns), tools=written)


def as_trained(row: Conversation, template: str) -> Conversation:
    """The canonical row as LLaMA-Factory is to be given it, in which the day of training must not stand."""
    told = told_to_training(
        tool_definition(template).format, row.system, offered(row), definition(template).default_system
    )
    return replace(row, system=told[0] or "", tools=told[1] or "")


def offered(row: Conversation) -> list[dict[str, Any]]:
    """The tools of a canonical row."""
    return list(json.loads(row.tools)) if row.tools else []


def messages(row: Conversation, template: str) -> Iterator[dict[str, Any]]:
    """The turns of a canonical row, the system text first, as OpenAI's messages."""
    shape, tools = definition(template), tool_definition(template)
    system = [{"role": "system", "content": row.system}] if row.system else []
    turns = [{"role": turn.role, "content": turn.content} for turn in row.messages]
    yield from to_messages([*system, *turns], shape.thought_words, tools.call_words)
