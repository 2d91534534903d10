"""Conversations with tools in two spellings: OpenAI's messages, which servers take, and LLaMA-Factory's turns.

OpenAI's answers hold `tool_calls`, and each tool answers in a message of its own; in a turn of LLaMA-Factory the calls
are JSON, perhaps behind a text or a thought, and the answers of several tools are one turn. This is the one place that
knows both. Conversations without tools are spelt alike.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from orchestrator.chat_template.tools import ToolError, canonical_call

CALL_WORDS = ("<tool_call>", "</tool_call>")
"""What LLaMA-Factory looks for around the JSON of a call, unless a template names other words."""
NEXT_RESULT = "\n</tool_response>\n<tool_response>\n"
"""What LLaMA-Factory writes between the answers of several tools (llamafactory/data/converter.py)."""
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)

Turn = Mapping[str, str]
"""{role, content}; the role is system, user, observation, assistant or function_call."""
Words = tuple[str, str]


def split_calls(
    content: str, thought_words: Words | None = None, call_words: Words = CALL_WORDS
) -> tuple[str, list[Any]]:
    """The text in front of the calls of a function_call turn, and the calls, as LLaMA-Factory's FunctionFormatter does.

    A thought in `<think>` is found in any white space, which LLaMA-Factory would not read. Raises ToolError for a turn
    that is no JSON.
    """
    between = re.compile(f"{re.escape(call_words[0])}(.*?){re.escape(call_words[1])}", re.DOTALL)
    if found := between.search(content):
        return content.replace(found[0], ""), _calls(found[1], content)
    if thought_words:
        exact = re.compile(f"{re.escape(thought_words[0])}.*?{re.escape(thought_words[1])}", re.DOTALL)
        if found := exact.search(content):
            return found[0], _calls(content.replace(found[0], ""), content)
    if found := _THOUGHT.match(content):
        opening, closing = thought_words or ("<think>\n", "\n</think>\n\n")
        return opening + found[1].strip() + closing, _calls(content[found.end() :], content)
    return "", _calls(content, content)


def join_calls(text: str, calls: Sequence[Mapping[str, Any]], call_words: Words = CALL_WORDS) -> str:
    """The content of a function_call turn: `split_calls` backwards. Raises ToolError where it would not lead back."""
    written = json.dumps(list(calls), ensure_ascii=False)
    if not text:
        return written
    content = f"{text}{call_words[0]}{written}{call_words[1]}"
    if split_calls(content, None, call_words) != (text, list(calls)):
        raise ToolError(f"a call with text in front of it must not hold {call_words[1]!r}")
    return content


def to_messages(
    turns: Iterable[Turn], thought_words: Words | None = None, call_words: Words = CALL_WORDS
) -> list[dict[str, Any]]:
    """Turns of a row as OpenAI's messages, arguments as JSON text. Calls are numbered: call_1, call_2, …"""
    messages: list[dict[str, Any]] = []
    numbers, open_calls = count(1), iter(())
    for turn in turns:
        if turn["role"] == "function_call":
            text, calls = split_calls(turn["content"], thought_words, call_words)
            made = [_openai_call(call, f"call_{next(numbers)}") for call in calls]
            open_calls = iter([call["id"] for call in made])
            messages.append({"role": "assistant", "content": text, "tool_calls": made})
        elif turn["role"] == "observation":
            for result in turn["content"].split(NEXT_RESULT):
                number = next(open_calls, None)
                messages.append({"role": "tool", "content": result} | ({"tool_call_id": number} if number else {}))
        else:
            messages.append({"role": turn["role"], "content": turn["content"]})
    return messages


def to_turns(messages: Iterable[Mapping[str, Any]], call_words: Words = CALL_WORDS) -> list[dict[str, str]]:
    """OpenAI's messages as the turns of a row: `to_messages` backwards. Raises ToolError for calls that are none."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role, content = message["role"], message.get("content") or ""
        if role == "tool" and turns and turns[-1]["role"] == "observation":
            turns[-1]["content"] += NEXT_RESULT + content
            continue
        if message.get("tool_calls"):
            calls = [canonical_call(call)[0] for call in message["tool_calls"]]
            role, content = "function_call", join_calls(content, calls, call_words)
        turns.append({"role": "observation" if role == "tool" else role, "content": content})
    return turns


def with_parsed_arguments(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same messages with the arguments of their calls as objects, as templates and Ollama's own API take them.

    Arguments that are no JSON stay the text they are.
    """
    return [
        {**message, "tool_calls": list(map(_parsed, message["tool_calls"]))}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _parsed(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    with contextlib.suppress(ToolError):
        function["arguments"] = canonical_call(call)[0]["arguments"]
    return {**call, "function": function}


def _openai_call(call: Mapping[str, Any], number: str) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return {"id": number, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _calls(text: str, content: str) -> list[Any]:
    try:
        calls = json.loads(text)
    except (ValueError, RecursionError):
        raise ToolError(f"a function_call turn must be JSON with name and arguments, not {content!r:.60}") from None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls:
        raise ToolError("a function_call turn holds no call")
    return [canonical_call(call)[0] for call in calls]
