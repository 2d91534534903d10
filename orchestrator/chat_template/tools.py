"""Tools and calls in the one form that every server writes alike, so that training can be given that form too.

A request's tools pass through Ollama's types (api/types.go, August 2026), which order their keys and drop what they do
not know, and through those of llama.cpp's server (common/chat.cpp), which give every tool a description. What comes out
of both is here the *canonical form*: whatever is in it already passes through them unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PRECISION = 6
"""Digits of a fraction that llama.cpp's Jinja engine writes (common/jinja/value.cpp: a C++ stream's own)."""
EXACT = 2**53
"""Up to here Ollama's numbers, which are floats, hold whole ones exactly."""


class ToolError(ValueError):
    """Tools or calls that no server takes; the message is a sentence for a person."""


def canonical_tools(tools: Sequence[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Tools as servers write them, and what that leaves out: one path for each, as `get_weather.city.default`.

    A tool is OpenAI's `{"type": "function", "function": {…}}` or just its inner part. Comes back as the former, with
    name, description and parameters; in parameters type, $defs, items, required and properties; in a property anyOf,
    type, items, description, enum, properties and required. Properties keep their order, what is nested elsewhere is
    sorted by key. Empty texts and lists of a property go without a word. Raises ToolError for what is no tool.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise ToolError(f"tools must be a list of objects with a name, not {tools!r:.60}")
    reader = _Reader()
    canonical = [reader.tool(tool, number) for number, tool in enumerate(tools, start=1)]
    names = [tool["function"]["name"] for tool in canonical]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ToolError(f"two tools are called {twice!r}")
    return canonical, reader.dropped


def canonical_call(call: Any) -> tuple[dict[str, Any], list[str]]:
    """A call `{"name": …, "arguments": {…}}` as servers write it, and the values that they write differently.

    OpenAI's form, `{"function": {"name", "arguments"}}` with arguments as JSON text, is taken too. Arguments keep their
    order, objects inside them are sorted by key; 2.0 becomes 2. Numbers that a server rounds stay as they are and are
    named. Raises ToolError for what is no call.
    """
    if not isinstance(call, Mapping):
        raise ToolError(f"a call must be an object with name and arguments, not {call!r:.60}")
    inner = call.get("function", call)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ToolError(f"a call must have the name of a tool, unlike {call!r:.60}")
    arguments = _arguments(inner.get("arguments"), name)
    rounded = [f"{name}.{path}: {value}" for path, value in _rounded(arguments)]
    return {"name": name, "arguments": {key: _nested(value) for key, value in arguments.items()}}, rounded


def _arguments(value: Any, name: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            raise ToolError(f"the arguments of {name} are not JSON: {value!r:.60}") from None
    if not isinstance(value, Mapping):
        raise ToolError(f"the arguments of {name} must be an object, not {value!r:.60}")
    return value


def _nested(value: Any) -> Any:
    """A value inside: Go's maps are written sorted by key, its numbers without a fraction of zero."""
    match value:
        case Mapping():
            return {key: _nested(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_nested(item) for item in value]
        case float() if value.is_integer() and abs(value) <= EXACT:
            return int(value)
    return value


def _rounded(value: Any, path: str = "") -> Iterator[tuple[str, int | float]]:
    """The numbers that a server writes with other digits, and where."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield from _rounded(inner, f"{path}.{key}" if path else str(key))
        case list() | tuple():
            for number, inner in enumerate(value, start=1):
                yield from _rounded(inner, f"{path}[{number}]")
        case bool():
            return
        case int() if abs(value) > EXACT:
            yield path, value
        case float() if not (value.is_integer() and abs(value) <= EXACT) and f"{value:.{PRECISION}g}" != repr(value):
            yield path, value


@dataclass(slots=True)
class _Reader:
    """Reads tools and remembers what it leaves out."""

    dropped: list[str] = field(default_factory=list)

    def tool(self, tool: Any, number: int) -> dict[str, Any]:
        if not isinstance(tool, Mapping):
            raise ToolError(f"tool {number} must be an object, not {tool!r:.60}")
        inner = tool.get("function", tool)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(name, str) or not name.strip():
            raise ToolError(f"tool {number} has no name")
        if inner is not tool:
            if tool.get("type", "function") != "function":
                raise ToolError(f"{name}: servers know tools of the type function only, not {tool['type']!r:.40}")
            self._rest(tool, ("type", "function"), name)
        self._rest(inner, ("name", "description", "parameters", *(("type",) if inner is tool else ())), name)
        description = _text(inner, "description", name)
        parameters = self._parameters(inner.get("parameters"), name)
        return {
            "type": "function",
            "function": {"name": name, "description": description, "parameters": parameters},
        }

    def _parameters(self, value: Any, path: str) -> dict[str, Any]:
        value = {} if value is None else _schema(value, f"{path}: parameters")
        if (kind := value.get("type") or "object") != "object":
            raise ToolError(f"{path}: parameters must be of the type object, not {kind!r:.40}")
        self._rest(value, ("type", "$defs", "items", "required", "properties"), path)
        found: dict[str, Any] = {"type": "object"}
        for key in ("$defs", "items"):
            found |= {key: self._numbers(value[key], f"{path}.{key}")} if value.get(key) is not None else {}
        found |= _required(value, path)
        return {**found, "properties": self._properties(value.get("properties"), path)}

    def _properties(self, value: Any, path: str) -> dict[str, Any]:
        properties = {} if value is None else _schema(value, f"{path}: properties")
        return {name: self._property(inner, f"{path}.{name}") for name, inner in properties.items()}

    def _property(self, value: Any, path: str) -> dict[str, Any]:
        value = _schema(value, path)
        readers: dict[str, Callable[[], Any]] = {
            "anyOf": lambda: [self._property(each, f"{path}.anyOf") for each in _list(value, "anyOf", path)],
            "type": lambda: _types(value, path),
            "items": lambda: self._numbers(value["items"], f"{path}.items"),
            "description": lambda: _text(value, "description", path),
            "enum": lambda: self._numbers(_list(value, "enum", path), f"{path}.enum"),
            "properties": lambda: self._properties(value["properties"], path),
            "required": lambda: _required(value, path).get("required"),
        }
        self._rest(value, tuple(readers), path)
        read = {key: reader() for key, reader in readers.items() if value.get(key) is not None}
        kept = ("items", "properties")  # empty ones are written; the other keys are not
        return {key: inner for key, inner in read.items() if inner or key in kept}

    def _numbers(self, value: Any, path: str) -> Any:
        """A part that servers pass on whole."""
        self.dropped += [f"{path}.{inner}: {number}" if inner else f"{path}: {number}" for inner, number in
                         _rounded(value)]  # fmt: skip
        return _nested(value)

    def _rest(self, value: Mapping[str, Any], known: Sequence[str], path: str) -> None:
        self.dropped += [f"{path}.{key}" for key in value if key not in known]


def _schema(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ToolError(f"{path} must be an object (a JSON schema), not {value!r:.60}")
    return value


def _list(value: Mapping[str, Any], key: str, path: str) -> list[Any]:
    if not isinstance(found := value.get(key), list):
        raise ToolError(f"{path}: {key} must be a list, not {found!r:.60}")
    return found


def _text(value: Mapping[str, Any], key: str, path: str) -> str:
    if not isinstance(found := value.get(key) or "", str):
        raise ToolError(f"{path}: {key} must be a text, not {found!r:.60}")
    return found


def _types(value: Mapping[str, Any], path: str) -> str | list[str]:
    found = value["type"]
    types = found if isinstance(found, list) else [found]
    if not all(isinstance(each, str) for each in types):
        raise ToolError(f"{path}: type must be a word or a list of words, not {found!r:.60}")
    return types[0] if len(types) == 1 else types


def _required(value: Mapping[str, Any], path: str) -> dict[str, list[str]]:
    """The names of what must be given; nothing where the list is empty."""
    names = [] if value.get("required") is None else _list(value, "required", path)
    if not all(isinstance(name, str) for name in names):
        raise ToolError(f"{path}: required must be a list of names, not {names!r:.60}")
    return {"required": list(names)} if names else {}
