"""Conversations with tools that every template is compared on: what is offered, called and answered, in odd words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.chat_template.messages import join_calls, to_messages
from orchestrator.chat_template.registry import ToolDefinition
from orchestrator.chat_template.tool_formats import tool_format
from orchestrator.chat_template.tools import canonical_call, canonical_tools

_OFFERED: list[dict[str, Any]] = [
    {
        "name": "get_weather",
        "description": "<x> & y 查天气，“引号” 'q' \\ \" {{ x }}",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "城市"},
                "unit": {"type": "string", "enum": ["celsius", "华氏"]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "days": {"type": ["integer", "null"]},
            },
            "required": ["city", "unit"],
        },
    },
    {"name": "now"},
    {
        "name": "book",
        "parameters": {
            "properties": {
                "guest": {"type": "object", "properties": {"age": {"type": "number"}}, "required": ["age"]},
                "where": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            }
        },
    },
]
OFFERED, _ = canonical_tools(_OFFERED)
_NESTED = {
    "guest": {"z": [1, 2.5, None, {}], "name": "他说：\"{'好'}\" \\n"},
    "where": "北京\n<b> & c",
    "tags": [],
    "sure": True,
}


def tool_conversations(
    tools: ToolDefinition, thought_words: tuple[str, str]
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """OpenAI's messages, and the tools that are offered: as far as the template can be trained on them.

    No call; one; one with nested quotes and Chinese; two in one answer; a call after what a tool answered; an answer
    after it, and another question; a text, and a thought, in front of a call.
    """
    asked, again = ("user", "北京和“上海”的天气？"), ("user", "And tomorrow?")
    one, none = _call("get_weather", {"city": "北京", "unit": "celsius"}), _call("now", {})
    nested, told = _call("book", _NESTED), ("observation", '{"sky": "晴", "note": "a \'b\'\\n"}')
    system = ("system", "你是“助手”。\nUse {{ tools }}.")
    rows: list[tuple[Any, ...]] = [
        (asked,),
        (system, asked),
        (asked, ([one], ""), told),
        (system, asked, ([nested], ""), told),
        (asked, ([one], ""), told, ([none], ""), ("observation", "12:00")),
        (system, asked, ([one], ""), told, ("assistant", "晴天。"), again),
    ]
    called = tool_format(tools.call_format)
    if called and called.parallel:
        rows.append((asked, ([one, nested, none], ""), ("observation", "晴\n</tool_response>\n<tool_response>\n12:00")))
    if tools.text_beside_calls:
        thought = "先看看…".join(thought_words)
        rows += [(asked, ([one], text), told) for text in ("Let me look.\n", thought)]
    for row in rows:
        turns = [_turn(turn, tools.call_words) for turn in row]
        yield to_messages(turns, thought_words, tools.call_words), OFFERED


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return canonical_call({"name": name, "arguments": arguments})[0]


def _turn(turn: tuple[Any, str], call_words: tuple[str, str]) -> dict[str, str]:
    first, text = turn
    if isinstance(first, str):
        return {"role": first, "content": text}
    return {"role": "function_call", "content": join_calls(text, first, call_words)}
