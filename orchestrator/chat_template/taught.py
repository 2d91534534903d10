"""What llama.cpp's server makes of the answers that training teaches: a text, a call, a thought in front of either."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.turns import SpecialTokens, stop_words, tool_turns, turns
from orchestrator.lib.llamafactory import tool_utils

TEXT, THOUGHT = "晴天。 OK", "先看看…"
CALL = ("get_weather", {"city": "北京", "unit": "celsius"})
"""Of a tool that `tool_cases` offers."""
QUESTION = ({"role": "user", "content": "北京和“上海”的天气？"},)


@dataclass(frozen=True, slots=True)
class Taught:
    """An answer as a model writes it, and what a client is to be told of it."""

    answer: str
    told: Mapping[str, Any]
    """Of content, reasoning_content, name and arguments what there is."""

    @property
    def shape(self) -> str:
        """In words."""
        words = {"reasoning_content": "thought", "content": "text", "name": "call"}
        return "+".join(word for key, word in words.items() if key in self.told)

    def misread(self, message: str) -> str:
        """What a server made of it (a text of `llama_server.render`), where that is something else; "" otherwise."""
        if message.startswith("error: "):
            return message
        made = _told(json.loads(message))
        return "" if made == self.told else json.dumps(made, ensure_ascii=False)


def taught(shape: Definition, thinking: bool, tokens: SpecialTokens, tools: ToolDefinition | None) -> Iterator[Taught]:
    """The answers of a template, with and without a thought where it thinks; calls where it has tools."""
    answer = turns(shape, tokens, thinking).assistant
    stops = list(filter(None, [*stop_words(shape, tokens), answer.after.strip()]))  # the latter: Granite's own EOS
    texts = [Taught(_until(answer.around(TEXT), stops), {"content": TEXT})]
    if tools:
        name, arguments = CALL
        around = tool_turns(shape, tools, tokens).call
        texts += [Taught(_until(around.around(_written(tools)), stops), {"name": name, "arguments": arguments})]
    yield from texts
    if shape.reasons and thinking:
        opening, closing = shape.thought_words
        for one in texts:
            yield Taught(opening + THOUGHT + closing + one.answer, {"reasoning_content": THOUGHT, **one.told})


class _FunctionCall(NamedTuple):
    """As llamafactory/data/tool_utils.py has it."""

    name: str
    arguments: str


def _written(tools: ToolDefinition) -> str:
    name, arguments = CALL
    call = _FunctionCall(name, json.dumps(arguments, ensure_ascii=False))
    return str(tool_utils(tools.call_format).function_formatter([call]))


def _until(text: str, stops: Sequence[str]) -> str:
    """What a model has written when one of these ends it."""
    return text[: min((at for stop in stops if (at := text.find(stop, 1)) >= 0), default=len(text))]


def _told(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a message says, without white space around it."""
    texts = {key: (message.get(key) or "").strip() for key in ("reasoning_content", "content")}
    told: dict[str, Any] = {key: text for key, text in texts.items() if text}
    for call in message.get("tool_calls") or ():
        told |= {"name": call["function"]["name"], "arguments": _arguments(call["function"]["arguments"])}
    return told


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
