"""The canonical form of tools and calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.chat_template.tools import ToolError, canonical_call, canonical_tools

ODD = {
    "strict": True,
    "parameters": {
        "additionalProperties": False,
        "properties": {
            "城市": {"description": "<x> & y “引号”", "default": "北京", "type": "string"},
            "days": {"enum": [1, 2.0, 3], "type": ["integer"], "minimum": 1},
            "where": {
                "required": ["lat"],
                "properties": {"lon": {"type": "number"}, "lat": {"format": "float", "type": ["number", "null"]}},
                "type": "object",
            },
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3, "enum": ["b", "a"]}},
        },
        "required": ["城市"],
        "type": "object",
    },
    "name": "get_weather",
}
CANONICAL = (
    '[{"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {"type": "object", '
    '"required": ["城市"], "properties": {"城市": {"type": "string", "description": "<x> & y “引号”"}, '
    '"days": {"type": "integer", "enum": [1, 2, 3]}, '
    '"where": {"type": "object", "properties": {"lon": {"type": "number"}, "lat": {"type": ["number", "null"]}}, '
    '"required": ["lat"]}, '
    '"tags": {"type": "array", "items": {"enum": ["b", "a"], "maxLength": 3, "type": "string"}}}}}}]'
)


def test_tools_are_written_in_the_order_of_the_servers_and_what_they_drop_is_named() -> None:
    tools, dropped = canonical_tools([ODD])
    assert json.dumps(tools, ensure_ascii=False) == CANONICAL
    assert dropped == [
        "get_weather.strict",
        "get_weather.additionalProperties",
        "get_weather.城市.default",
        "get_weather.days.minimum",
        "get_weather.where.lat.format",
    ]


def test_the_form_is_its_own_form_wrapped_or_not() -> None:
    once, _ = canonical_tools([ODD])
    assert canonical_tools(once) == (once, [])
    assert canonical_tools([once[0]["function"]]) == (once, [])
    bare = {"type": "object", "properties": {}}
    assert canonical_tools([{"name": "now"}])[0][0]["function"] == {
        "name": "now",
        "description": "",
        "parameters": bare,
    }


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("get_weather", "tools must be a list"),
        ([7], "tool 1 must be an object"),
        ([{"description": "x"}], "tool 1 has no name"),
        ([{"name": "a", "parameters": {"properties": {"x": True}}}], "a.x must be an object"),
        ([{"name": "a", "parameters": {"properties": ["x"]}}], "a: properties must be an object"),
        ([{"name": "a", "parameters": {"type": "string"}}], "a: parameters must be of the type object"),
        ([{"name": "a", "parameters": {"properties": {"x": {"type": 3}}}}], "a.x: type must be a word"),
        ([{"name": "a", "parameters": {"required": "x"}}], "a: required must be a list"),
        ([{"name": "a"}, {"name": "a"}], "two tools are called 'a'"),
        ([{"type": "retrieval", "function": {"name": "a"}}], "type function only"),
    ],
)
def test_what_is_no_tool_is_named(tools: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        canonical_tools(tools)


def test_calls_keep_the_order_of_arguments_and_sort_what_is_nested() -> None:
    call = {"name": "book", "arguments": {"z": {"b": 1.0, "a": '“引号” "x"'}, "a": [{"d": None, "c": 2.5}], "n": 3.0}}
    canonical, rounded = canonical_call(call)
    assert json.dumps(canonical, ensure_ascii=False) == (
        '{"name": "book", "arguments": {"z": {"a": "“引号” \\"x\\"", "b": 1}, "a": [{"c": 2.5, "d": null}], "n": 3}}'
    )
    assert rounded == []
    openai = {"id": "1", "type": "function", "function": {"name": "book", "arguments": json.dumps(call["arguments"])}}
    assert canonical_call(openai) == (canonical, [])
    assert canonical_call(canonical) == (canonical, [])


def test_numbers_that_servers_round_are_kept_and_named() -> None:
    arguments = {"lat": 31.230416, "ok": 0.000001, "ids": [12345678901234567890, 7]}
    assert canonical_call({"name": "f", "arguments": arguments}) == (
        {"name": "f", "arguments": arguments},
        ["f.lat: 31.230416", "f.ids[1]: 12345678901234567890"],
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("x", "a call must be an object"),
        ({"arguments": {}}, "must have the name"),
        ({"name": "f", "arguments": "{cut"}, "the arguments of f are not JSON"),
        ({"name": "f", "arguments": [1]}, "the arguments of f must be an object"),
        ({"name": "f"}, "the arguments of f must be an object"),
    ],
)
def test_what_is_no_call_is_named(call: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        canonical_call(call)
