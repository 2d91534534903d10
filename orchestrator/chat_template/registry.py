"""The chat templates of the installed LLaMA-Factory, read from its source: importing it would load torch."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.llamafactory import package_folder


class Mark(Enum):
    """What stands between the literal texts of a template."""

    CONTENT = "content"
    BOS = "bos"
    EOS = "eos"


class Word(str):
    """A text that is one token in the model's vocabulary: `{"token": …}`."""


Slots = tuple[str | Mark, ...]

_CONTENT = "{{content}}"
_WITH_TOOLS_OF = "+"
_INSTRUCTION_TUNED = ("-Chat", "-Distill", "-Instruct", "-Thinking")
"""`register_model_group` in extras/constants.py gives a template to these names and to multimodal models only."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One `register_template(…)` call, its defaults filled in as that function does."""

    name: str
    user: Slots
    assistant: Slots
    system: Slots
    prefix: Slots
    default_system: str
    stop_words: tuple[str, ...]
    thought_words: tuple[str, str]
    kind: str
    """The class of the template: Template, Llama2Template, ReasoningTemplate or Glm47ReasoningTemplate."""
    efficient_eos: bool
    replace_eos: bool

    @property
    def reasons(self) -> bool:
        """Whether LLaMA-Factory adds an empty thought to answers that have none."""
        return self.kind.endswith("ReasoningTemplate")

    @property
    def system_in_first_user_turn(self) -> bool:
        """Whether the system text is put in front of the first question, inside its turn."""
        return self.kind == "Llama2Template"

    @property
    def empty_thought(self) -> str:
        """`add_thought("")` of the template's class; GLM-4.7 writes the closing word only."""
        opening, closing = self.thought_words
        return closing if self.kind == "Glm47ReasoningTemplate" else opening + closing

    def with_default_system(self, text: str | None) -> Definition:
        """The same template with another system text for conversations that bring none; None keeps its own."""
        return self if text is None else replace(self, default_system=text)


def template_names() -> list[str]:
    """The names of all templates, sorted."""
    return sorted(_calls())


@dataclass(frozen=True, slots=True)
class TemplateName:
    """A template, and the tool format it is trained with where that is not its own: `gemma`, `gemma+qwen`.

    LLaMA-Factory takes the two as arguments of these names.
    """

    template: str
    tool_format: str | None = None

    @classmethod
    def of(cls, name: str) -> TemplateName:
        """The two of a name."""
        template, _, tool_format = name.partition(_WITH_TOOLS_OF)
        return cls(template, tool_format or None)

    def __str__(self) -> str:
        return f"{self.template}{_WITH_TOOLS_OF}{self.tool_format}" if self.tool_format else self.template

    def arguments(self) -> dict[str, str]:
        """As arguments of LLaMA-Factory."""
        own = {"template": self.template}
        return own | {"tool_format": self.tool_format} if self.tool_format else own


@cache
def definition(name: str) -> Definition:
    """The definition of a template. Raises InputError for an unknown name."""
    arguments = _arguments(name)
    efficient_eos = bool(_literal(arguments, "efficient_eos", False))
    bare = (Mark.CONTENT,)
    return Definition(
        name=name,
        user=_slots(arguments, "format_user", bare),
        assistant=_slots(arguments, "format_assistant", bare if efficient_eos else (Mark.CONTENT, Mark.EOS)),
        system=_slots(arguments, "format_system", bare),
        prefix=_slots(arguments, "format_prefix", ()),
        default_system=_literal(arguments, "default_system", ""),
        stop_words=tuple(_literal(arguments, "stop_words", None) or ()),
        thought_words=_literal(arguments, "thought_words", None) or ("<think>\n", "\n</think>\n\n"),
        kind=ast.unparse(arguments["template_class"]) if "template_class" in arguments else "Template",
        efficient_eos=efficient_eos,
        replace_eos=bool(_literal(arguments, "replace_eos", False)),
    )


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """What a `register_template(…)` call says of tools, its defaults filled in as that function does."""

    format: str
    """How tools are told to the model, a key of TOOLS in llamafactory/data/tool_utils.py; "" for their bare JSON."""
    declared: Slots
    """What stands around them, behind the system text."""
    call_format: str
    """How calls are written, of the same keys."""
    call: Slots
    result: Slots
    """A tool's answer; LLaMA-Factory calls it an observation."""
    call_words: tuple[str, str]
    """What stands around the JSON of a call in a row that has text beside it."""
    text_beside_calls: bool
    """Whether a call's turn may have a text or a thought in front of it: Llama2Template takes bare JSON only."""


@cache
def tool_definition(name: str) -> ToolDefinition:
    """What a template says of tools. Raises InputError for an unknown name."""
    shape, arguments = definition(name), _arguments(name)
    told = arguments.get("format_tools")
    raw = isinstance(told, ast.Call) and ast.unparse(told.func) == "StringFormatter"
    own = ToolDefinition(
        format="" if raw else _tool_format(told),
        declared=_slots(arguments, "format_tools", (Mark.CONTENT,)),
        call_format=_tool_format(arguments.get("format_function")),
        call=_slots(arguments, "format_function", shape.assistant),
        result=_slots(arguments, "format_observation", shape.user),
        call_words=_literal(arguments, "tool_call_words", None) or ("<tool_call>", "</tool_call>"),
        text_beside_calls=shape.kind != "Llama2Template",
    )
    other = TemplateName.of(name).tool_format
    if other is None:
        return own
    # get_template_and_fix_tokenizer of llamafactory/data/template.py
    ended = (Mark.CONTENT,) if shape.efficient_eos else (Mark.CONTENT, Mark.EOS)
    return replace(own, format=other, declared=(Mark.CONTENT,), call_format=other, call=ended)


def tool_prompt(name: str) -> str:
    """A text of llamafactory/data/tool_utils.py that tells a model of its tools, a pattern for `str.format`."""
    for statement in _source("data/tool_utils.py").body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return str(ast.literal_eval(value))
    raise InputError(f"LLaMA-Factory has no {name} in data/tool_utils.py", "Run `orchestrator doctor`.")


def _tool_format(formatter: ast.expr | None) -> str:
    keywords = formatter.keywords if isinstance(formatter, ast.Call) else []
    return next((str(ast.literal_eval(each.value)) for each in keywords if each.arg == "tool_format"), "default")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts of a definition, each a row of texts that training gives to the tokenizer one by one."""

    user: tuple[Slots, ...]
    assistant: tuple[Slots, ...]
    system: tuple[Slots, ...]
    prefix: tuple[Slots, ...]


def pieces(name: str) -> Pieces:
    """Where the texts of a template are cut before they become tokens. Raises InputError for an unknown name."""
    shape, arguments = definition(name), _arguments(name)
    slots = {part: arguments.get(f"format_{part}") for part in ("user", "assistant", "system", "prefix")}
    cut = {part: _cut(value) or tuple((slot,) for slot in getattr(shape, part)) for part, value in slots.items()}
    return Pieces(**cut)


@dataclass(frozen=True, slots=True)
class ToolPieces:
    """The same of calls and results."""

    call: tuple[Slots, ...]
    result: tuple[Slots, ...]


def tool_pieces(name: str) -> ToolPieces:
    """Where a template's texts around calls and results are cut. Raises InputError for an unknown name."""
    plain, arguments = pieces(name), _arguments(name)
    result = _cut(arguments.get("format_observation")) or plain.user
    if TemplateName.of(name).tool_format:
        return ToolPieces(tuple((slot,) for slot in tool_definition(name).call), result)
    return ToolPieces(_cut(arguments.get("format_function")) or plain.assistant, result)


def template_for_model(repository: str) -> str | None:
    """The template that LLaMA-Factory names for a model, by the last part of its repository name, in any case.

    None where it names none: it does so for instruction-tuned and multimodal models only.
    """
    return _models().get(repository.rstrip("/").rsplit("/", 1)[-1].lower())


def _unknown(name: str) -> InputError:
    names = template_names()
    close = difflib.get_close_matches(name.lower(), names, n=3) or names
    return InputError(
        f"LLaMA-Factory has no template {name!r}; closest: {', '.join(close[:3])}",
        "`orchestrator template check --all` lists all of them.",
    )


# ---- reading the source


def _arguments(name: str) -> Mapping[str, ast.expr]:
    known = _calls().get(TemplateName.of(name).template)
    if known is None:
        raise _unknown(TemplateName.of(name).template)
    return known


@cache
def _calls() -> Mapping[str, Mapping[str, ast.expr]]:
    calls = _keywords_of_calls(_source("data/template.py"), "register_template")
    return {_literal(arguments, "name", ""): arguments for arguments in calls}


@cache
def _models() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for arguments in _keywords_of_calls(_source("extras/constants.py"), "register_model_group"):
        template, models = _literal(arguments, "template", None), arguments["models"]
        if template is None or not isinstance(models, ast.Dict):
            continue
        for name, sources in zip(models.keys, models.values, strict=True):
            if "multimodal" in arguments or any(tag in ast.unparse(name or models) for tag in _INSTRUCTION_TUNED):
                found.update(dict.fromkeys(_repository_names(sources), template))
    return found


def _repository_names(sources: ast.expr) -> Iterator[str]:
    if isinstance(sources, ast.Dict):
        for value in sources.values:
            yield str(ast.literal_eval(value)).rsplit("/", 1)[-1].lower()


def _source(name: str) -> ast.Module:
    return ast.parse((package_folder("llamafactory") / name).read_bytes())


def _keywords_of_calls(tree: ast.Module, function: str) -> Iterator[Mapping[str, ast.expr]]:
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), keywords=keywords)) if name == function:
                yield {keyword.arg: keyword.value for keyword in keywords if keyword.arg}


def _literal(arguments: Mapping[str, ast.expr], key: str, default: Any) -> Any:
    return ast.literal_eval(arguments[key]) if key in arguments else default


def _slots(arguments: Mapping[str, ast.expr], key: str, default: Slots) -> Slots:
    cut = _cut(arguments.get(key))
    return default if cut is None else tuple(part for piece in cut for part in piece)


def _cut(formatter: ast.expr | None) -> tuple[Slots, ...] | None:
    match formatter:
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
