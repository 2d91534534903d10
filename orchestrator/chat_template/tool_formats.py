"""How each tool format of LLaMA-Factory tells a model of its tools and writes calls, as Jinja.

The words come from LLaMA-Factory's own texts (llamafactory/data/tool_utils.py); what its classes do around them is
written here, and `template check` compares the two. Only what transformers' and llama.cpp's engines do alike is used:
`for`, `if`, `set`, `+`, `in`, `is string`, `.items()`, `join` and `tojson`, which is `json.dumps(ensure_ascii=False)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from orchestrator.chat_template.source import tool_prompt

LLAMA3 = "llama3"
LLAMA3_DATE = "26 Jul 2024"
"""The day that Llama 3.1's own chat template writes unless told another. LLaMA-Factory writes the day of training."""

_ARGUMENTS = "(arguments if arguments is string else (arguments | tojson))"
_VALUE = "(value if value is string else (value | tojson))"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Jinja for `tools`, and for the calls of one answer, `message['tool_calls']`."""

    declare: str
    call: str
    parallel: bool = True
    """Whether an answer may hold several calls."""


def quote(text: str) -> str:
    """A Jinja string literal. Line ends are escaped, since Jinja makes the same of all kinds of them."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(character, character) for character in text) + "'"


@cache
def tool_format(name: str) -> ToolFormat | None:
    """The format of that name; None where it cannot be written in Jinja."""
    maker = _FORMATS.get(name)
    return maker() if maker else None


def known() -> list[str]:
    """The formats that can be served, sorted."""
    return sorted(filter(None, _FORMATS))


def unknown(*names: str) -> str | None:
    """Why formats cannot be served, or None."""
    missing = next((name for name in names if name not in _FORMATS), None)
    return missing and f"the tool format {missing!r} is not written in Jinja here"


READ_EVERYWHERE = "qwen"
"""The format that Ollama, llama.cpp's server and LLaMA-Factory read calls from: JSON between tags."""
_UNREAD = {
    "default": "once tools are offered, it answers with an error whatever the model wrote",
    "glm4": "once tools are offered, it answers a text with an error",
    "glm4_moe": "once tools are offered, it answers with an error whatever the model wrote",
    "minimax2": "it takes several arguments for one, and answers most texts with an error",
    "seed_oss": "a call is an error or text there",
}


def unread(call_format: str) -> str | None:
    """Why llama.cpp's server, which Ollama starts too, cannot read calls in a format, or None where it can."""
    reason = _UNREAD.get(call_format)
    return (
        reason and f"llama.cpp's server, which Ollama starts too, cannot read calls of the form {call_format}: {reason}"
    )


def row_refusal(formats: Iterable[str], tools: Sequence[Mapping[str, Any]], calls: Sequence[int]) -> str | None:
    """Why LLaMA-Factory cannot train on a row in these formats, or None; `calls` counts those of each answer."""
    for name in formats:
        found = tool_format(name)
        if found and not found.parallel and max(calls, default=0) > 1:
            return f"the tool format {name!r} knows one call in an answer, not {max(calls)}"
        if name == "default" and (path := next(_odd_for_default(tools), None)):
            return f"the tool format 'default' joins the values of an enum as texts, and those of {path} are none"
    return None


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


def _odd_for_default(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tool in tools:
        function = tool["function"]
        for name, schema in function["parameters"]["properties"].items():
            if not all(isinstance(value, str) for value in schema.get("enum", ())):
                yield f"{function['name']}.{name}"


# ---- pieces of Jinja


def write(*parts: str) -> str:
    """Jinja that writes the sum of some expressions."""
    return "{{ " + " + ".join(parts) + " }}"


def _each_tool(*parts: str) -> str:
    return "{% for tool in tools %}" + write(*parts) + "{% endfor %}"


def _each_call(body: str, between: str = "\n") -> str:
    separator = f"{{% if not loop.first %}}{write(quote(between))}{{% endif %}}" if between else ""
    named = "{% set name = call['function']['name'] %}{% set arguments = call['function']['arguments'] %}"
    return f"{{% for call in message['tool_calls'] %}}{separator}{named}{body}{{% endfor %}}"


def _around(prompt: str, tools: str, after: str = "", **more: str) -> str:
    """A prompt of LLaMA-Factory with Jinja in the place of its tools."""
    before, behind = tool_prompt(prompt).format(tool_text="\0", **more).split("\0")
    return write(quote(before)) + tools + (write(quote(behind + after)) if behind + after else "")


def _named(key: str = "arguments") -> list[str]:
    """{"name": …, "arguments": …}"""
    return [quote('{"name": '), "(name | tojson)", quote(f', "{key}": '), _ARGUMENTS, quote("}")]


def _each_argument(*parts: str) -> str:
    return "{% for key, value in arguments.items() %}" + write(*parts) + "{% endfor %}"


_WRAPPED, _INNER = "(tool | tojson)", "(tool['function'] | tojson)"


# ---- the formats


def _type(schema: str, name: str) -> str:
    """Sets a variable to the type of a schema, several as Python prints a list; llama.cpp would write them joined."""
    several = (
        "'[' + " + quote("'") + f" + ({name} | join({quote(chr(39) + ', ' + chr(39))})) + " + quote("'") + " + ']'"
    )
    return (
        f"{{% set {name} = {schema}['type'] if {schema}['type'] else '' %}}"
        f"{{% if {name} is not string %}}{{% set {name} = {several} %}}{{% endif %}}"
    )


def _default() -> ToolFormat:
    before, between, behind = tool_prompt("DEFAULT_TOOL_PROMPT").format(tool_text="\0", tool_names="\0").split("\0")
    required = "{% if parameters['required'] and name in parameters['required'] %}, required{% endif %}"
    enum = "{% if param['enum'] %}{{ ', should be one of [' + (param['enum'] | join(', ')) + ']' }}{% endif %}"
    each = _type("param['items']", "each")
    items = (
        "{% if 'items' in param and param['items'] %}" + each + "{{ ', where each item should be ' + each }}{% endif %}"
    )
    argument = (
        _type("param", "kind") + "{{ '  - ' + name + ' (' + kind }}" + required + "{{ '): ' }}"
        "{{ param['description'] if param['description'] else '' }}" + enum + items + "{{ '\\n' }}"
    )
    tool = (
        "{% for tool in tools %}{% set function = tool['function'] %}{% set parameters = function['parameters'] %}"
        "{{ '> Tool Name: ' + function['name'] + '\\nTool Description: ' }}"
        "{{ function['description'] if function['description'] else '' }}{{ '\\nTool Args:\\n' }}"
        "{% for name, param in parameters['properties'].items() %}" + argument + "{% endfor %}{{ '\\n' }}{% endfor %}"
    )
    names = "{% for tool in tools %}{{ (', ' if not loop.first else '') + tool['function']['name'] }}{% endfor %}"
    called = write(quote("Action: "), "name", quote("\nAction Input: "), _ARGUMENTS)
    return ToolFormat(
        write(quote(before)) + tool + write(quote(between)) + names + write(quote(behind)), _each_call(called)
    )


def _glm4() -> ToolFormat:
    behind = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
    body = "(tool['function'] | tojson(indent=4))"
    tools = _each_tool(quote("\n\n## "), "tool['function']['name']", quote("\n\n"), body, quote(behind))
    called = _each_call(write("name", quote("\n"), _ARGUMENTS))
    return ToolFormat(_around("GLM4_TOOL_PROMPT", tools), called, parallel=False)


def _llama3() -> ToolFormat:
    tools = _around("LLAMA3_TOOL_PROMPT", _each_tool("(tool | tojson(indent=4))", quote("\n\n")), date=LLAMA3_DATE)
    opened, closed = (f"{{% if message['tool_calls'] | length > 1 %}}{mark}{{% endif %}}" for mark in "[]")
    return ToolFormat(tools, opened + _each_call(write(*_named("parameters")), ", ") + closed)


def _mistral() -> ToolFormat:
    tools = write(quote("[AVAILABLE_TOOLS] "), "(tools | tojson)", quote("[/AVAILABLE_TOOLS]"))
    return ToolFormat(tools, write(quote("[")) + _each_call(write(*_named()), ", ") + write(quote("]")))


def _qwen(prompt: str = "QWEN_TOOL_PROMPT", after: str = "") -> ToolFormat:
    called = write(quote("<tool_call>\n"), *_named(), quote("\n</tool_call>"))
    return ToolFormat(_around(prompt, _each_tool(quote("\n"), _WRAPPED), after), _each_call(called))


def _qwen3_5() -> ToolFormat:
    argument = _each_argument(quote("\n<parameter="), "key", quote(">\n"), _VALUE, quote("\n</parameter>"))
    called = write(quote("<tool_call>\n<function="), "name", quote(">")) + argument
    called += write(quote("\n</function>\n</tool_call>"))
    return ToolFormat(_around("QWEN35_TOOL_PROMPT", _each_tool(quote("\n"), _INNER)), _each_call(called))


def _glm4_moe() -> ToolFormat:
    argument = _each_argument(
        quote("\n<arg_key>"), "key", quote("</arg_key>"), quote("\n<arg_value>"), _VALUE, quote("</arg_value>")
    )
    called = _each_call(write(quote("\n<tool_call>"), "name") + argument)
    return ToolFormat(_around("GLM4_MOE_TOOL_PROMPT", _each_tool(quote("\n"), _WRAPPED)), called)


def _minimax1() -> ToolFormat:
    called = write(quote("<tool_calls>\n")) + _each_call(write(*_named())) + write(quote("\n</tool_calls>"))
    return ToolFormat(_around("MINIMAX_M1_TOOL_PROMPT", _each_tool(_INNER, quote("\n"))), called)


def _minimax2() -> ToolFormat:
    argument = _each_argument(quote('\n<parameter name="'), "key", quote('">'), _VALUE, quote("</parameter>"))
    called = write(quote('<invoke name="'), "name", quote('">')) + argument + write(quote("\n</invoke>"))
    tools = _each_tool(quote("<tool>"), _INNER, quote("</tool>\n"))
    return ToolFormat(_around("MINIMAX_M2_TOOL_PROMPT", tools), _each_call(called))


def _seed_oss() -> ToolFormat:
    argument = _each_argument(quote("\n<parameter="), "key", quote(">"), _VALUE, quote("</parameter>"))
    called = write(quote("\n<seed:tool_call>\n<function="), "name") + argument
    called += write(quote("\n</function>\n</seed:tool_call>"))
    return ToolFormat(_around("SEED_TOOL_PROMPT", write(quote("\n"), "(tools | tojson)")), _each_call(called))


def _lfm2() -> ToolFormat:
    inner = "{% for tool in tools %}{{ (', ' if not loop.first else '') + " + _INNER + " }}{% endfor %}"
    tools = _around("LFM2_TOOL_PROMPT", write(quote("[")) + inner + write(quote("]")))
    value = "('\"' + value + '\"' if value is string else (value | tojson))"
    arguments = _each_argument("(', ' if not loop.first else '')", "key", quote("="), value)
    called = _each_call(write("name", quote("(")) + arguments + write(quote(")")), ", ")
    return ToolFormat(tools, write(quote("<|tool_call_start|>[")) + called + write(quote("]<|tool_call_end|>")))


_FORMATS: Mapping[str, Callable[[], ToolFormat]] = {
    "": lambda: ToolFormat(write("(tools | tojson)"), ""),
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
