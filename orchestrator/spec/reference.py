"""What can stand in a spec.yaml, for people (Markdown) and for editors (JSON schema)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.lib.llamafactory import Argument, arguments
from orchestrator.spec.sections import DEFAULTS, KEEP, KEEP_ABOUT, KEEPS, Spec
from orchestrator.spec.training import decided_elsewhere

_JSON_TYPES = {
    "text": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "null": "null",
}
_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}


def json_schema() -> dict[str, Any]:
    """The JSON schema of spec.yaml, with the training arguments of the installed LLaMA-Factory under `train`."""
    schema = Spec.model_json_schema()
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "spec.yaml"}
    settable = {name: _property(argument) for name, argument in arguments().items() if not decided_elsewhere(name)}
    settable[KEEP] = {"enum": list(KEEPS), "description": KEEP_ABOUT, "default": KEEPS[0]}
    schema["properties"]["train"] |= {"properties": settable, "additionalProperties": False}
    return schema


def _property(argument: Argument) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": [_JSON_TYPES[kind] for kind in argument.kinds], "description": argument.help}
    if argument.choices:
        entry["enum"] = [*argument.choices, *([None] if "null" in argument.kinds else [])]
    default = DEFAULTS.get(argument.name, argument.default)
    return entry | ({} if default is None else {"default": default})


def reference() -> str:
    """Markdown tables of every key: its type, its default, what it is."""
    schema = Spec.model_json_schema()
    train = [
        "\n## `train`",
        "",
        f"One of {len(arguments())} arguments. Without it:",
        "",
        "| key | default | |",
        "|---|---|---|",
    ]
    train += [f"| `train.{name}` | {_code(value)} | {arguments()[name].help} |" for name, value in DEFAULTS.items()]
    ours = f"Not LLaMA-Factory's: {' or '.join(map(_code, KEEPS))}. {KEEP_ABOUT}"
    train.append(f"| `train.{KEEP}` | {_code(KEEPS[0])} | {ours} |")
    return "\n".join([*_section("", schema, schema["$defs"]), *train])


def _section(path: str, section: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """The table of a section, then those of the sections in it."""
    yield from ([f"\n## `{path}`", ""] if path else [])
    yield from (section["description"], "", "| key | value | default | |", "|---|---|---|---|")
    inner = {}
    for name, entry in section["properties"].items():
        dotted = f"{path}.{name}" if path else name
        if target := _target(entry):
            inner[dotted] = known[target]
            yield f"| `{dotted}` | section | | {known[target]['description']} |"
        else:
            default = "required" if name in section.get("required", ()) else _code(entry.get("default"))
            yield f"| `{dotted}` | {_words(entry)} | {default} | {entry.get('description', '')} |"
    for dotted, target in inner.items():
        yield from _section(dotted, target, known)


def _target(entry: Mapping[str, Any]) -> str | None:
    """The name of the section that an entry refers to."""
    for part in (entry, *entry.get("anyOf", ())):
        if "$ref" in part:
            return str(part["$ref"]).rsplit("/", 1)[-1]
    return None


def _words(entry: Mapping[str, Any]) -> str:
    """The type of an entry in words."""
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_words(part) for part in entry["anyOf"] if part.get("type") != "null"))
    if choices := entry.get("enum") or ([entry["const"]] if "const" in entry else []):
        return ", ".join(map(_code, choices))
    if entry.get("type") == "array":
        return f"list of {_words(entry['items'])}"
    limits = [f"{sign} {entry[key]:g}" for key, sign in _LIMITS.items() if key in entry]
    return f"{_WORDS.get(entry.get('type', ''), entry.get('type', 'anything'))} {', '.join(limits)}".strip()


_LIMITS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def _code(value: Any) -> str:
    """A value as it is written in YAML."""
    if value is None:
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"
