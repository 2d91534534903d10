"""A row's tools, calls and thoughts in the form that servers write and read; it is trained, so it can be served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.messages import join_calls, split_calls, to_messages
from orchestrator.chat_template.refusals import row_refusal
from orchestrator.chat_template.registry import definition, tool_definition
from orchestrator.chat_template.thoughts import in_words
from orchestrator.chat_template.tool_formats import told_to_training
from orchestrator.chat_template.tools import ToolError, canonical_tools
from orchestrator.data.conversation import Conversation, Message
from orchestrator.evaluation.calls import CallReader, from_json
from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    from orchestrator.chat_template.encode import Encoder


def has_tools(row: Conversation) -> bool:
    """Whether a row offers tools or calls some."""
    return bool(row.tools) or any(turn.role in ("observation", "function_call") for turn in row.messages)


def canonical(row: Conversation, template: str) -> Conversation:
    """The row with its tools and calls in the canonical form, and its thoughts between the template's own words.

    Raises InputError for what the template cannot train.
    """
    row = _with_thoughts(row, template)
    if not has_tools(row):
        return row
    try:
        tools, answers = _read(row, template)
        if reason := _unfit(template, tools, answers):
            raise ToolError(reason)
        words = tool_definition(template).call_words
        contents = {number: join_calls(text, calls, words) for number, (text, calls) in answers.items()}
    except ToolError as error:
        message = f"{row.source}, row {row.row}: {template!r} cannot train it: {error}"
        raise InputError(message, "Choose another model.template, such as qwen, or leave such rows out.") from None
    turns = (replace(turn, content=contents.get(number, turn.content)) for number, turn in enumerate(row.messages))
    return replace(row, messages=tuple(turns), tools=json.dumps(tools, ensure_ascii=False) if tools else "")


def _with_thoughts(row: Conversation, template: str) -> Conversation:
    """Thoughts in front of calls are `split_calls`'s."""
    shape = definition(template)
    if not shape.reasons:
        return row
    words = shape.thought_words
    turns = (
        replace(turn, content=in_words(turn.content, words)) if turn.role == "assistant" else turn
        for turn in row.messages
    )
    chosen, rejected = (in_words(text, words) for text in (row.chosen, row.rejected))
    return replace(row, messages=tuple(turns), chosen=chosen, rejected=rejected)


def untrainable(row: Conversation, template: str) -> str | None:
    """Why a template cannot train on the tools and calls of a row, or None."""
    if not has_tools(row):
        return None
    try:
        return _unfit(template, *_read(row, template))
    except ToolError as error:
        return str(error)


Answers = Mapping[int, tuple[str, list[Any]]]
"""Number of a turn → the text in front of its calls, and the calls."""


def _read(row: Conversation, template: str) -> tuple[list[dict[str, Any]], Answers]:
    shape, tools = definition(template), tool_definition(template)
    answers = {
        number: split_calls(turn.content, shape.thought_words, tools.call_words)
        for number, turn in enumerate(row.messages)
        if turn.role == "function_call"
    }
    return canonical_tools(json.loads(row.tools))[0] if row.tools else [], answers


def _unfit(template: str, tools: Sequence[Mapping[str, Any]], answers: Answers) -> str | None:
    shape = tool_definition(template)
    if any(text for text, _ in answers.values()) and not shape.text_beside_calls:
        return "LLaMA-Factory reads no text or thought beside a call with this template"
    counts = [len(calls) for _, calls in answers.values()]
    if reason := row_refusal((shape.format, shape.call_format), tools, counts):
        return reason
    reader = _reader(template)
    lost = next((calls for _, calls in answers.values() if not reader.reads(from_json(calls) or ())), None)
    if lost:
        return f"nobody could read {json.dumps(lost, ensure_ascii=False):.80} in what training makes of it"
    return None


@cache
def _reader(template: str) -> CallReader:
    return CallReader(template)


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


def question(row: Conversation, template: str) -> list[dict[str, Any]]:
    """The conversation up to the answer that is asked for, as OpenAI's messages."""
    return list(messages(row if row.chosen else replace(row, messages=row.messages[:-1]), template))


def label(encoder: Encoder, row: Conversation) -> str:
    """The right answer as training teaches it."""
    last = row.messages[-1]
    return row.chosen or encoder.answer_text({"role": last.role, "content": last.content})


def answered(row: Conversation) -> Conversation:
    """The row with its good answer as the last turn, and no other."""
    answer = (Message("assistant", row.chosen),) if row.chosen else ()
    return replace(row, messages=(*row.messages, *answer), chosen="", rejected="", desirable=None)
