"""The source of the installed LLaMA-Factory, read for what it registers: importing it would load torch."""

from __future__ import annotations

import ast
import difflib
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
def templates() -> Mapping[str, Arguments]:
    """Every `register_template(…)` call of data/template.py, by its name."""
    calls = _calls(_tree("data/template.py"), "register_template")
    return {literal(arguments, "name", ""): arguments for arguments in calls}


def template(name: str) -> Arguments:
    """The call that registers a template. Raises InputError for an unknown name."""
    if name in (known := templates()):
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=3) or sorted(known)
    raise InputError(
        f"LLaMA-Factory has no template {name!r}; closest: {', '.join(close[:3])}",
        "`orchestrator template check --all` lists all of them.",
    )


def template_for_model(repository: str) -> str | None:
    """The template that LLaMA-Factory names for a model, by the last part of its repository name, in any case.

    None where it names none: it does so for instruction-tuned and multimodal models only.
    """
    return _models().get(_name_of(repository.rstrip("/")))


@cache
def _models() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for arguments in _calls(_tree("extras/constants.py"), "register_model_group"):
        template, models = literal(arguments, "template", None), arguments["models"]
        if template is None or not isinstance(models, ast.Dict):
            continue
        for name, repositories in zip(models.keys, models.values, strict=True):
            if "multimodal" in arguments or any(tag in ast.unparse(name or models) for tag in _INSTRUCTION_TUNED):
                places = repositories.values if isinstance(repositories, ast.Dict) else ()
                found |= {_name_of(str(ast.literal_eval(place))): template for place in places}
    return found


def _name_of(repository: str) -> str:
    return repository.rsplit("/", 1)[-1].lower()


def tool_prompt(name: str) -> str:
    """A text of llamafactory/data/tool_utils.py that tells a model of its tools, a pattern for `str.format`."""
    for statement in _tree("data/tool_utils.py").body:
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


def _tree(name: str) -> ast.Module:
    return ast.parse((package_folder("llamafactory") / name).read_bytes())


def _calls(tree: ast.Module, function: str) -> Iterator[Arguments]:
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), keywords=keywords)) if name == function:
                yield {keyword.arg: keyword.value for keyword in keywords if keyword.arg}
