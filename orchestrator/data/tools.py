"""The tools a row offers and the calls it makes: whether the first are JSON schemas and the second fit them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from orchestrator.chat_template.messages import split_calls
from orchestrator.chat_template.tools import ToolError, canonical_tools
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.rows import RowError
from orchestrator.evaluation.calls import Call, Calls

_SHOWN = 60  # characters of a value


def read_tools(value: Any) -> str:
    """The tools of a row as JSON text; "" for none. Raises RowError for what is no list of tools with JSON schemas."""
    if value is None or value == "" or value == []:
        return ""
    try:
        text = json.dumps(json.loads(value) if isinstance(value, str) else value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        raise RowError("bad_tools", "tools must be a JSON list of objects with a name") from None
    if error := declared(text).error:
        raise RowError("bad_tools", error)
    return text


def read_calls(content: str) -> Calls:
    """The calls of a function_call turn, whose thoughts stand before them. Raises RowError where there are none."""
    try:
        _, calls = split_calls(content)
    except ToolError as error:
        raise RowError("bad_function_call", str(error)) from None
    return tuple(Call(call["name"], call["arguments"]) for call in calls)


def check_calls(turns: Sequence[Message], tools: str) -> None:
    """Raises RowError for a result that nobody called for and, where tools are offered, for calls that do not fit."""
    for number, turn in enumerate(turns, start=1):
        if turn.role == "observation" and turns[number - 2].role != "function_call":
            raise RowError("result_without_call", f"turn {number} is a tool's result, and the turn before calls none")
        if turn.role == "function_call" and tools:
            for call in read_calls(turn.content):
                if problem := declared(tools).problem(call.name, call.arguments):
                    raise RowError(*problem)


def calls_of(row: Conversation) -> Iterator[Calls]:
    """The calls of each turn that makes some."""
    yield from (read_calls(turn.content) for turn in row.messages if turn.role == "function_call")


class Declared:
    """The tools of a row, and a validator for each one's arguments."""

    def __init__(self, tools: str) -> None:
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
        from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]

        self.error, self.dropped = "", list[str]()
        self._validators: dict[str, Any] = {}
        try:
            given = json.loads(tools)
            _, self.dropped = canonical_tools(given)
            for tool in given:
                inner = tool.get("function", tool)
                schema = inner.get("parameters") or {}
                Draft202012Validator.check_schema(schema)
                self._validators[inner["name"]] = Draft202012Validator(schema)
        except ToolError as error:
            self.error = str(error)
        except SchemaError as error:
            self.error = f"{inner['name']}: parameters are no JSON schema: {error.message[:_SHOWN]}"

    def problem(self, name: str, arguments: Any) -> tuple[str, str] | None:
        """Why a call does not fit, as a word and a sentence; None for one that does."""
        if name not in self._validators:
            offered = ", ".join(list(self._validators)[:5])
            return "undeclared_tool", f"calls {name!r}, but its tools are {offered}"
        if not isinstance(arguments, Mapping):
            return "bad_arguments", f"the arguments of {name} must be an object, not {arguments!r:.{_SHOWN}}"
        return self._misfit(name, arguments)

    def _misfit(self, name: str, arguments: Any) -> tuple[str, str] | None:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            found = best_match(self._validators[name].iter_errors(arguments))
        except Unresolvable as error:
            return "bad_tools", f"{name}: its schema refers to {error.ref!r}, which is not there"
        if found is None:
            return None
        where = ".".join(map(str, found.absolute_path))
        return "bad_arguments", f"{name}{f'.{where}' if where else ''}: {found.message[: 2 * _SHOWN]}"


@lru_cache(maxsize=256)
def declared(tools: str) -> Declared:
    """What a row's tools say; most rows of a file offer the same ones."""
    return Declared(tools)
