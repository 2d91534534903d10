"""Calls of tools in answers: read as LLaMA-Factory reads them, compared as calls and not as texts.

Two calls are the same where the names are, and the arguments as JSON values: the order and spacing of keys, and whether
a whole number was written as 2 or 2.0, do not matter. Several calls in one answer may come in any order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from orchestrator.lib.llamafactory import tool_utils

_PROBE = "probed_name"


class _FunctionCall(NamedTuple):
    """As llamafactory/data/tool_utils.py has it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. `arguments` is any JSON value; a tool wants an object."""

    name: str
    arguments: Any

    @property
    def key(self) -> str:
        """The same text for the same call."""
        return f"{self.name} {_canonical(self.arguments)}"

    def to_json(self) -> dict[str, Any]:
        """`{name, arguments}`."""
        return {"name": self.name, "arguments": self.arguments}


Calls = tuple[Call, ...]


class CallReader:
    """Reads calls out of what a model of this template writes, as llamafactory/data/template.py's `extract_tool` does.

    Raises InputError for an unknown template, MissingError where LLaMA-Factory is not installed.
    """

    def __init__(self, template: str) -> None:
        from orchestrator.chat_template.registry import tool_definition  # a page reads no templates

        self._utils = tool_utils(tool_definition(template).call_format)
        self.start = self.written([Call(_PROBE, {})]).partition(_PROBE)[0].strip()
        """What every call begins with; "" where that is the name of its tool."""

    def read(self, answer: str) -> Calls:
        """The calls of an answer without its thoughts; none in one that is text, or a call that was cut off."""
        try:
            found = self._utils.tool_extractor(answer)
            read = () if isinstance(found, str) else tuple(Call(str(c.name), json.loads(c.arguments)) for c in found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # a number where a call should be
            return ()
        return read

    def is_broken(self, answer: str) -> bool:
        """Whether it begins a call and holds none: it ran out of tokens, perhaps in its first words, or is no JSON."""
        if not self.start or self.read(answer):
            return False
        least = len(self.start.split(maxsplit=1)[0])
        return self.start in answer or any(answer.endswith(self.start[:size]) for size in range(least, len(self.start)))

    @cached_property
    def reads_back(self) -> bool:
        """Whether it finds the calls that training writes; of glm4_moe and minimax2, LLaMA-Factory 0.9.5 finds none."""
        calls = (Call("f", {"text": "a", "n": 1}),)
        return same(self.read(self.written(calls)), calls)

    def reads(self, calls: Calls) -> bool:
        """Whether it finds these calls, where it finds any: with lfm2, none with a quotation mark inside a text."""
        return not self.reads_back or same_names(self.read(self.written(calls)), calls)

    def written(self, calls: Iterable[Call]) -> str:
        """The calls as training writes them, without what the template puts around. Raises ValueError where it takes
        fewer at a time."""
        given = [_FunctionCall(call.name, json.dumps(call.arguments, ensure_ascii=False)) for call in calls]
        return str(self._utils.function_formatter(given))


def from_json(value: Any) -> Calls | None:
    """The calls of `{"name", "arguments"}` or of a list of such; None for anything else."""
    entries = value if isinstance(value, list) else [value]
    named = [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]
    if len(named) != len(entries) or any("arguments" not in entry for entry in named):
        return None
    return tuple(Call(entry["name"], entry["arguments"]) for entry in named)


def expected_calls(label: str, reader: CallReader) -> Calls:
    """The calls of a right answer, which is written as in the data files (JSON) or as in the template."""
    return in_json(label) or reader.read(label)


def in_json(text: str) -> Calls:
    """The calls of a text that is JSON, as in the data files; none in any other."""
    try:
        return from_json(json.loads(text)) or ()
    except (ValueError, RecursionError):
        return ()


def same(a: Iterable[Call], b: Iterable[Call]) -> bool:
    """Whether both are the same calls, in any order."""
    return Counter(call.key for call in a) == Counter(call.key for call in b)


def same_names(a: Iterable[Call], b: Iterable[Call]) -> bool:
    """Whether both call the same tools equally often."""
    return Counter(call.name for call in a) == Counter(call.name for call in b)


def argument_f1(given: Iterable[Call], expected: Iterable[Call]) -> float:
    """F1 of (tool, argument, value), 0 to 1; of calls without any argument, whether the names are the same."""
    said, wanted = Counter(_pairs(given)), Counter(_pairs(expected))
    if not wanted and not said:
        return float(same_names(given, expected))
    return 2 * (said & wanted).total() / (said.total() + wanted.total())


def _pairs(calls: Iterable[Call]) -> Iterable[tuple[str, str, str]]:
    for call in calls:
        if isinstance(call.arguments, Mapping):
            yield from ((call.name, str(key), _canonical(value)) for key, value in call.arguments.items())
        else:
            yield call.name, "", _canonical(call.arguments)


def _canonical(value: Any) -> str:
    """A JSON text that is the same for equal values."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if value.is_integer():
            return int(value)
    return value
