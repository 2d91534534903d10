"""The source of the installed LLaMA-Factory, read for what it registers: importing it would load torch."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.llamafactory import package_folder

Arguments = Mapping[str, ast.expr]
"""The keywords of a call."""
_CONTENT = "{{content}}"
_INSTRUCTION_TUNED = ("-Chat", "-Distill", "-Instruct", "-Thinking")
"""`register_model_group` in extras/constants.py gives a template to these names and to multimodal models only."""


class Mark(Enum):
    """What stands between the literal texts of a template."""

    CONTENT = "content"
    BOS = "bos"
    EOS = "eos"


class Word(str):
    """A text that is one token in the model's vocabulary: `{"token": …}`."""


Slots = tuple[str | Mark, ...]


@cache
def templates() -> Mapping[str, str]:
    """The text of every `register_template(…)` call of data/template.py, by its name."""
    calls = _calls("data/template.py", "register_template")
    return {name[1]: call for call in calls if (name := re.search(r"\bname=\"([^\"]+)\"", call))}


def template(name: str) -> Arguments:
    """The call that registers a template. Raises InputError for an unknown name."""
    if name in (known := templates()):
        return _arguments(known[name])
    close = difflib.get_close_matches(name.lower(), known, n=3) or sorted(known)
    raise InputError(
        f"LLaMA-Factory has no template {name!r}; closest: {', '.join(close[:3])}",
        "`orchestrator template check --all` lists all of them.",
    )


def template_for_model(repository: str) -> str | None:
    """The template that LLaMA-Factory names for a model, by the last part of its repository name, in any case.

    None where it names none: it does so for instruction-tuned and multimodal models only.
    """
    wanted, found = _name_of(repository.rstrip("/")), None
    for call in _calls("extras/constants.py", "register_model_group"):
        if wanted in call.lower() and wanted in _models(_arguments(call)):
            found = literal(_arguments(call), "template", None) or found
    return found


def _models(arguments: Arguments) -> set[str]:
    """The models of a group that have its template."""
    if not isinstance(models := arguments["models"], ast.Dict):
        return set()
    return {
        _name_of(str(ast.literal_eval(place)))
        for name, places in zip(models.keys, models.values, strict=True)
        if "multimodal" in arguments or any(tag in ast.unparse(name or models) for tag in _INSTRUCTION_TUNED)
        for place in (places.values if isinstance(places, ast.Dict) else ())
    }


def _name_of(repository: str) -> str:
    return repository.rsplit("/", 1)[-1].lower()


def tool_prompt(name: str) -> str:
    """A text of llamafactory/data/tool_utils.py that tells a model of its tools, a pattern for `str.format`."""
    for statement in ast.parse(_text("data/tool_utils.py")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return str(ast.literal_eval(value))
    raise InputError(f"LLaMA-Factory has no {name} in data/tool_utils.py", "Run `orchestrator doctor`.")


# ---- what arguments hold


def literal(arguments: Arguments, key: str, default: Any) -> Any:
    """An argument that is written as a Python value."""
    return ast.literal_eval(arguments[key]) if key in arguments else default


def slots(arguments: Arguments, key: str, default: Slots) -> Slots:
    """The texts and marks of an argument such as `StringFormatter(slots=[…])`, in one row."""
    cut = pieces(arguments, key)
    return default if cut is None else tuple(part for piece in cut for part in piece)


def pieces(arguments: Arguments, key: str) -> tuple[Slots, ...] | None:
    """The same, cut where training cuts them before they become tokens; None where the argument is not there."""
    match arguments.get(key):
        case ast.Call(keywords=[ast.keyword(arg="slots", value=value), *_]):
            return tuple(tuple(_parts(slot)) for slot in ast.literal_eval(value))
    return None


def _parts(slot: Any) -> Iterator[str | Mark]:
    """A slot as `_convert_elements_to_ids` reads it: text, {"token": …}, or a set that names BOS or EOS."""
    if isinstance(slot, dict):
        yield Word(slot["token"])
    elif isinstance(slot, set):
        yield from (mark for mark in (Mark.BOS, Mark.EOS) if f"{mark.value}_token" in slot)
    else:
        before, found, after = slot.partition(_CONTENT)
        yield from (part for part in (before, Mark.CONTENT if found else "", after) if part)


def _text(name: str) -> str:
    return (package_folder("llamafactory") / name).read_text(encoding="utf-8")


@cache
def _calls(name: str, function: str) -> tuple[str, ...]:
    """The texts of a module's calls of a function, each with the lines that are indented below it, and `)`.

    To parse the two modules whole takes as long as all else of a plan's reading.
    """
    return tuple(re.findall(rf"^{function}\(.*(?:\n(?:[ )].*)?)*", _text(name), re.MULTILINE))


@cache
def _arguments(call: str) -> Arguments:
    match ast.parse(call).body:
        case [ast.Expr(value=ast.Call(keywords=keywords))]:
            return {keyword.arg: keyword.value for keyword in keywords if keyword.arg}
    raise InputError("LLaMA-Factory registers templates in a way that is not known", "Run `orchestrator doctor`.")
