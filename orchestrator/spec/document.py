"""YAML text → plain values and the line of every key, with the scalars of YAML 1.2: `1e-4` is a number, `no` a text.

PyYAML reads the syntax; the values are built here, because its own constructor forgets lines, keeps the last of two
equal keys, follows YAML 1.1 and expands aliases without a limit.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from orchestrator.lib.secrecy import holds_token

Key = tuple[str | int, ...]
"""Where a value stands: `("train", "learning_rate")`, `("data", "train", 0)`."""

MAX_BYTES = 256_000
_MAX_DEPTH = 40
_MAX_VALUES = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_SCALARS = {  # the core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}


class Finding(NamedTuple):
    """Something wrong, and where."""

    key: Key
    message: str
    line: int | None = None
    """None: the key's own."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says."""

    value: Any
    lines: Mapping[Key, int]
    """Lines count from 1; those of a key in a mapping are the key's, not the value's."""
    findings: tuple[Finding, ...] = ()


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2 and a limit on nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="too deeply nested", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}  # without those of YAML 1.1
for _name, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, None)


def parse(text: str) -> Document:
    """What a text says, and everything wrong with it that concerns YAML alone. Never raises."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        return Document(None, {}, (Finding((), f"the character U+{int(error.character):04X} is not allowed", line),))
    except yaml.MarkedYAMLError as error:
        return Document(None, {}, (_syntax(error),))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        return Document(None, {}, (Finding((), f"not valid YAML: {error}", 1),))
    builder = _Builder(findings=list(_secrets(text)))
    value = builder.build(node, ()) if node else None
    return Document(value, builder.lines, tuple(builder.findings))


def _secrets(text: str) -> Iterator[Finding]:
    """A spec is copied into every run, comments too."""
    if holds_token(text):
        for number, line in enumerate(text.splitlines(), 1):
            if holds_token(line):
                yield Finding((), "looks like a token or a password; put it into the environment instead", number)


_SYNTAX = {  # what PyYAML says → what its reader did
    "'\\t'": "a tab where YAML wants spaces",
    "mapping values are not allowed": "a colon inside a text; put the text in quotes",
    "but found another document": "a second document begins (---); a spec is one document",
    "could not find expected ':'": "a key without a colon, or a line that is not indented as the one above",
    "unexpected end of stream": "a quote that is not closed",
    "<stream end>": "a bracket that is not closed",
}


def _syntax(error: yaml.MarkedYAMLError) -> Finding:
    problem = error.problem or error.context or "cannot be read"
    plain = next((words for said, words in _SYNTAX.items() if said in problem), problem)
    mark = error.context_mark if "not closed" in plain else error.problem_mark
    return Finding((), f"not valid YAML: {plain}", mark.line + 1 if mark else 1)


@dataclass
class _Builder:
    """Values from nodes. A part that is wrong is reported and left out."""

    lines: dict[Key, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    count: int = 0

    def build(self, node: yaml.Node, key: Key) -> Any:
        self.count += 1
        if self.count > _MAX_VALUES or len(key) > _MAX_DEPTH:
            if self.count <= _MAX_VALUES + 1:
                self._complain(key, node, "too many values, or an alias that contains itself")
            self.count = _MAX_VALUES + 1
            return None
        self.lines.setdefault(key, node.start_mark.line + 1)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(item, (*key, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            return node.value if self._sound(node.value, key, node) else None
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS and _SCALARS[kind].match(node.value):
            return self._scalar(node, key, kind)
        return self._complain(key, node, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed here")

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = name_node.value
            if not isinstance(name_node, yaml.ScalarNode) or not isinstance(name, str):
                self._complain(key, name_node, "a key must be a word")
            elif name in result:
                first = self.lines[*key, name]
                self._complain((*key, name), name_node, f"given twice, here and in line {first}; keep one")
            elif self._sound(name, key, name_node):
                self.lines[*key, name] = name_node.start_mark.line + 1
                result[name] = self.build(value_node, (*key, name))
        return result

    def _scalar(self, node: yaml.ScalarNode, key: Key, kind: str) -> Any:
        if kind in ("null", "bool"):
            return None if kind == "null" else node.value.lower() == "true"
        value = _number(node.value)
        if value is None:
            return self._complain(key, node, f"{node.value[:20]} is not a usable number")
        return float(value) if kind == "float" else value

    def _sound(self, text: str, key: Key, node: yaml.Node) -> bool:
        if found := _CONTROL.search(text):
            self._complain(key, node, f"the character U+{ord(found[0]):04X} is not allowed in a text")
        return not found

    def _complain(self, key: Key, node: yaml.Node, message: str) -> None:
        self.findings.append(Finding(key, message, node.start_mark.line + 1))


def _number(text: str) -> int | float | None:
    """The number that a text of the core schema means; None where it is infinite, no number, or absurdly long."""
    if len(text) > 40:
        return None
    if re.match(r"0[ox]", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    value = float(re.sub(r"(?i)\.(?=inf|nan)", "", text))
    return value if math.isfinite(value) else None


def quote(value: Any) -> str:
    """A value as its author wrote it, with its kind where that could be the mistake."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text '{value[:40]}{'…' if len(value) > 40 else ''}'"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
    return str(value)


def one_of(choices: Iterable[str]) -> str:
    """The choices in a row, cut where nobody reads on."""
    names = list(choices)
    return ", ".join(names[:14]) + (f", … ({len(names)} in all)" if len(names) > 14 else "")


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt word most likely means, or None where nothing comes close."""
    names = {name.lower(): name for name in choices}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return names[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    found = closest(word, choices)
    return f"; did you mean {found}?" if found else ""
