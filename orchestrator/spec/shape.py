"""Values → a spec, and what is wrong with their shape: types, choices, unknown keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.lib.llamafactory import arguments
from orchestrator.spec.document import Finding, Key, closest, did_you_mean, one_of, quote
from orchestrator.spec.editing import section_at
from orchestrator.spec.sections import Spec

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_EXPECTED = {  # pydantic's kinds of errors, in words
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "at least {min_length} entry",
    "string_too_long": "at most {max_length} characters",
}


def parse(values: Mapping[str, Any]) -> Spec:
    """The spec that values make. Raises pydantic's ValidationError.

    Strict mode takes a list for a tuple only when it reads JSON, hence the detour. A section left empty is absent.
    """
    return Spec.model_validate_json(json.dumps({key: value for key, value in values.items() if value is not None}))


def misshapen(values: Mapping[str, Any]) -> list[Finding]:
    """What pydantic has against the values of a spec, in words that name the choices."""
    try:
        parse(values)
    except ValidationError as error:
        grouped: dict[Key, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            grouped.setdefault(_key(detail, values), []).append(detail)
        outer = {key[:size] for key in grouped for size in range(len(key))}  # alternatives that do not even come close
        return [Finding(key, _explain(key, details)) for key, details in grouped.items() if key not in outer]
    return []


def _key(detail: ErrorDetails, values: Any) -> Key:
    """Where an error is: pydantic's location without its names for the alternatives of a union."""
    location = detail["loc"]
    missing = location[-1:] if detail["type"] == "missing" else ()
    key: Key = ()
    for part in location[: len(location) - len(missing)]:
        known = isinstance(values, Mapping) and part in values
        if known or (isinstance(values, list) and isinstance(part, int)):
            key = (*key, part)
            values = values[part]
    return (*key, *missing)


def _explain(key: Key, details: list[ErrorDetails]) -> str:
    kind, value = details[0]["type"], details[0]["input"]
    if kind == "extra_forbidden":
        return _unknown(key)
    section = section_at(key[:-1]) if key else None
    field = section.model_fields.get(str(key[-1])) if section else None
    about = f": {field.description}" if field and field.description else ""
    if kind == "missing":
        return f"is missing{about}"
    if kind == "string_pattern_mismatch":
        return f"cannot be {quote(value)}{about}"
    literals = [detail["ctx"]["expected"] for detail in details if detail["type"] == "literal_error"]
    choices = [choice for expected in literals for choice in expected.split("'")[1::2]]  # out of `'a', 'b' or 'c'`
    expected = [_EXPECTED[d["type"]].format(**d.get("ctx", {})) for d in details if d["type"] in _EXPECTED]
    if "a number" in expected:
        expected = [words for words in expected if words != "a whole number"]
    if choices:
        expected.append(f"one of {one_of(choices)}" if len(choices) > 1 else choices[0])
    guess = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"expected {' or '.join(dict.fromkeys(expected)) or details[0]['msg']}, got {quote(value)}{guess}"


def _unknown(key: Key) -> str:
    """A misspelt key, or one that belongs to another section."""
    name, section = str(key[-1]), section_at(key[:-1])
    known = list(section.model_fields) if section else []
    if guess := did_you_mean(name, known):
        return f"unknown key{guess}"
    elsewhere = {argument: f"train.{argument}" for argument in arguments()}
    for outer in Spec.model_fields:
        elsewhere |= {inner: f"{outer}.{inner}" for inner in getattr(section_at((outer,)), "model_fields", ())}
    close = closest(name, elsewhere)
    return f"unknown key; did you mean {elsewhere[close]}?" if close else f"unknown key; known are {one_of(known)}"
