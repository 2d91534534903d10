"""How each tool format of LLaMA-Factory tells a model of its tools and writes calls, as Jinja.

The words come from LLaMA-Factory's own texts (llamafactory/data/tool_utils.py); what its classes do around them is
written here, and `template check` compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from orchestrator.chat_template.source import tool_prompt
from orchestrator.chat_template.syntax import each, filled, put, quote, say, text, when, write

LLAMA3 = "llama3"
LLAMA3_DATE = "26 Jul 2024"
"""The day that Llama 3.1's own chat template writes unless told another. LLaMA-Factory writes the day of training."""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Jinja for `tools`, and for the calls of one answer, `message['tool_calls']`."""

    declare: str
    call: str
    parallel: bool = True
    """Whether an answer may hold several calls."""


@cache
def tool_format(name: str) -> ToolFormat | None:
    """The format of that name; None where it cannot be written in Jinja."""
    maker = _FORMATS.get(name)
    return maker() if maker else None


def known() -> list[str]:
    """The formats that can be served, sorted."""
    return sorted(filter(None, _FORMATS))


def told_to_training(
    name: str, system: str | None, tools: Sequence[Mapping[str, Any]], default_system: str = ""
) -> tuple[str | None, str | None]:
    """A row's system text and its tools, as JSON, in the way that LLaMA-Factory is to be given them.

    Where a format writes the day of training, no server can write it later: such tools become part of the system text,
    behind which LLaMA-Factory would put them, with a fixed day.
    """
    if not tools:
        return system, None
    if name != LLAMA3:
        return system, json.dumps(list(tools), ensure_ascii=False)
    return (system or default_system) + _llama3_declaration(tools), None


def _llama3_declaration(tools: Sequence[Mapping[str, Any]]) -> str:
    texts = [json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n" for tool in tools]
    return tool_prompt("LLAMA3_TOOL_PROMPT").format(date=LLAMA3_DATE, tool_text="".join(texts))


# ---- what formats share

_NAME = "‹name | tojson›"
_ARGUMENTS = "‹arguments if arguments is string else (arguments | tojson)›"
_VALUE = "‹value if value is string else (value | tojson)›"
_CALL = f'{{"name": {_NAME}, "arguments": {_ARGUMENTS}}}'
_TOOL, _FUNCTION = "‹tool | tojson›", "‹tool['function'] | tojson›"


def _around(prompt: str, tools: str, after: str = "", **more: str) -> str:
    """A prompt of LLaMA-Factory with Jinja in the place of its tools."""
    before, behind = tool_prompt(prompt).format(tool_text="\0", **more).split("\0")
    return text(before) + tools + text(behind + after)


def _each_tool(*patterns: str) -> str:
    return each("tool", "tools", say(*patterns))


def _each_call(body: str, between: str = "\n") -> str:
    separator = when("not loop.first", text(between))
    named = put("name", "call['function']['name']") + put("arguments", "call['function']['arguments']")
    return each("call", "message['tool_calls']", separator + named + body)


def _each_argument(*patterns: str) -> str:
    return each("key, value", "arguments.items()", say(*patterns))


# ---- the formats


def _default() -> ToolFormat:
    before, between, behind = tool_prompt("DEFAULT_TOOL_PROMPT").format(tool_text="\0", tool_names="\0").split("\0")
    tools = each("tool", "tools", _default_tool())
    names = each("tool", "tools", say("‹', ' if not loop.first else ''›‹tool['function']['name']›"))
    called = say("Action: ‹name›", "\nAction Input: ", _ARGUMENTS)
    return ToolFormat(text(before) + tools + text(between) + names + text(behind), _each_call(called))


def _default_tool() -> str:
    head = put("function", "tool['function']") + put("parameters", "function['parameters']")
    told = say("> Tool Name: ‹function['name']›\nTool Description: ") + _or_nothing("function['description']")
    arguments = each("name, param", "parameters['properties'].items()", _default_argument())
    return head + told + text("\nTool Args:\n") + arguments + text("\n")


def _default_argument() -> str:
    required = when("parameters['required'] and name in parameters['required']", ", required")
    enum = when("param['enum']", say(", should be one of [‹param['enum'] | join(', ')›]"))
    items = _type("param['items']", "each") + say(", where each item should be ‹each›")
    return "".join([
        _type("param", "kind"), say("  - ‹name› (‹kind›"), required, text("): "), _or_nothing("param['description']"),
        enum, when("'items' in param and param['items']", items), text("\n"),
    ])  # fmt: skip


def _or_nothing(expression: str) -> str:
    return write(f"{expression} if {expression} else ''")


def _type(schema: str, name: str) -> str:
    """Sets a variable to the type of a schema, several as Python prints a list; llama.cpp would write them joined."""
    between = quote("', '")
    several = filled("[", "'", f"‹{name} | join({between})›", "'", "]")
    one = put(name, f"{schema}['type'] if {schema}['type'] else ''")
    return one + when(f"{name} is not string", put(name, several))


def _glm4() -> ToolFormat:
    behind = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
    tools = _each_tool("\n\n## ‹tool['function']['name']›\n\n‹tool['function'] | tojson(indent=4)›", behind)
    return ToolFormat(_around("GLM4_TOOL_PROMPT", tools), _each_call(say("‹name›\n", _ARGUMENTS)), parallel=False)


def _llama3() -> ToolFormat:
    tools = _around("LLAMA3_TOOL_PROMPT", _each_tool("‹tool | tojson(indent=4)›\n\n"), date=LLAMA3_DATE)
    opened, closed = (when("message['tool_calls'] | length > 1", mark) for mark in "[]")
    called = say(f'{{"name": {_NAME}, "parameters": {_ARGUMENTS}}}')
    return ToolFormat(tools, opened + _each_call(called, ", ") + closed)


def _mistral() -> ToolFormat:
    tools = say("[AVAILABLE_TOOLS] ‹tools | tojson›[/AVAILABLE_TOOLS]")
    return ToolFormat(tools, text("[") + _each_call(say(_CALL), ", ") + text("]"))


def _qwen(prompt: str = "QWEN_TOOL_PROMPT", after: str = "") -> ToolFormat:
    called = say("<tool_call>\n", _CALL, "\n</tool_call>")
    return ToolFormat(_around(prompt, _each_tool("\n", _TOOL), after), _each_call(called))


def _qwen3_5() -> ToolFormat:
    argument = _each_argument("\n<parameter=‹key›>\n", _VALUE, "\n</parameter>")
    called = say("<tool_call>\n<function=‹name›>") + argument + text("\n</function>\n</tool_call>")
    return ToolFormat(_around("QWEN35_TOOL_PROMPT", _each_tool("\n", _FUNCTION)), _each_call(called))


def _glm4_moe() -> ToolFormat:
    argument = _each_argument("\n<arg_key>‹key›</arg_key>", "\n<arg_value>", _VALUE, "</arg_value>")
    called = _each_call(say("\n<tool_call>‹name›") + argument)
    return ToolFormat(_around("GLM4_MOE_TOOL_PROMPT", _each_tool("\n", _TOOL)), called)


def _minimax1() -> ToolFormat:
    called = text("<tool_calls>\n") + _each_call(say(_CALL)) + text("\n</tool_calls>")
    return ToolFormat(_around("MINIMAX_M1_TOOL_PROMPT", _each_tool(_FUNCTION, "\n")), called)


def _minimax2() -> ToolFormat:
    argument = _each_argument('\n<parameter name="‹key›">', _VALUE, "</parameter>")
    called = say('<invoke name="‹name›">') + argument + text("\n</invoke>")
    tools = _each_tool("<tool>", _FUNCTION, "</tool>\n")
    return ToolFormat(_around("MINIMAX_M2_TOOL_PROMPT", tools), _each_call(called))


def _seed_oss() -> ToolFormat:
    argument = _each_argument("\n<parameter=‹key›>", _VALUE, "</parameter>")
    called = say("\n<seed:tool_call>\n<function=‹name›") + argument + text("\n</function>\n</seed:tool_call>")
    return ToolFormat(_around("SEED_TOOL_PROMPT", say("\n‹tools | tojson›")), _each_call(called))


def _lfm2() -> ToolFormat:
    inner = each("tool", "tools", say("‹', ' if not loop.first else ''›", _FUNCTION))
    tools = _around("LFM2_TOOL_PROMPT", text("[") + inner + text("]"))
    value = """‹'"' + value + '"' if value is string else (value | tojson)›"""
    arguments = _each_argument("‹', ' if not loop.first else ''›‹key›=", value)
    called = _each_call(say("‹name›(") + arguments + text(")"), ", ")
    return ToolFormat(tools, text("<|tool_call_start|>[") + called + text("]<|tool_call_end|>"))


_FORMATS: Mapping[str, Callable[[], ToolFormat]] = {
    "": lambda: ToolFormat(say("‹tools | tojson›"), ""),
    "default": _default,
    "glm4": _glm4,
    "glm4_moe": _glm4_moe,
    "lfm2": _lfm2,
    "ling": lambda: _qwen("LING_TOOL_PROMPT", "\ndetailed thinking off"),
    LLAMA3: _llama3,
    "minimax1": _minimax1,
    "minimax2": _minimax2,
    "mistral": _mistral,
    "qwen": _qwen,
    "qwen3_5": _qwen3_5,
    "seed_oss": _seed_oss,
}
"""All of LLaMA-Factory's but gemma4's, whose nested arguments it writes by rules of its own, and in another order."""
