"""White space that a tokenizer adds to a template's texts, or takes away, so that a served prompt is that of training.

Training gives the texts to the tokenizer one by one, and one of the SentencePiece kind begins each with a space; a
served prompt is one text, where that space must be part of the template. What llama.cpp adds by itself
(`add_space_prefix`, a space behind every marker) is what the older kind of these tokenizers does too. Markers with
`rstrip`, as Phi 3 has them, swallow the white space behind them in training, and in llama.cpp they do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from orchestrator.chat_template import source
from orchestrator.chat_template.registry import Definition, TemplateName, ToolDefinition, definition, tool_definition
from orchestrator.chat_template.source import Mark, Slots, Word
from orchestrator.lib.files import read_json


@dataclass(frozen=True, slots=True)
class Spacing:
    """What a tokenizer does to white space."""

    adds: Literal["stretches", "pieces"] | None = None
    """A space at the start of every stretch between markers, as llama.cpp adds it; of each text it is given; none."""
    markers: frozenset[str] = frozenset()
    swallowing: frozenset[str] = frozenset()
    """Markers that take the white space behind them away."""

    def begins_with_text(self, slot: str | Mark) -> bool:
        """Whether a part of a template begins with something other than a marker."""
        return _is_text(slot) and not any(str.startswith(str(slot), marker) for marker in self.markers)

    def ends_with_text(self, slot: str | Mark) -> bool:
        """Whether a part of a template ends with something other than a marker."""
        return _is_text(slot) and not any(str.endswith(str(slot), marker) for marker in self.markers)

    def swallowed(self, slot: str | Mark) -> str | Mark:
        """A literal text of a template without the white space that is taken away; anything else as it is."""
        if isinstance(slot, (Mark, Word)) or not self.swallowing:
            return slot
        return re.sub(f"({'|'.join(map(re.escape, self.swallowing))})\\s+", r"\1", slot)


def spacing_of(folder: Path) -> Spacing:
    """What the tokenizer.json of a model folder says of white space; nothing where there is none."""
    file = folder / "tokenizer.json"
    tokenizer = read_json(file) if file.is_file() else {}
    added = tokenizer.get("added_tokens", ())
    return Spacing(
        _adds({part["type"]: part for key in ("normalizer", "pre_tokenizer") for part in _flat(tokenizer.get(key))}),
        frozenset(token["content"] for token in added),
        frozenset(token["content"] for token in added if token.get("rstrip")),
    )


def spaced(shape: Definition, spacing: Spacing) -> Definition:
    """The template with the white space that its texts had in training."""
    if not spacing.adds and not spacing.swallowing:
        return shape
    user, assistant, system, prefix = (
        _pieces(shape, [part], spacing) for part in ("user", "assistant", "system", "prefix")
    )
    question_is_text = bool(user) and spacing.begins_with_text(user[0][0])
    return replace(
        shape,
        prefix=_part(prefix, spacing, before=question_is_text),
        system=shape.system if shape.system_in_first_user_turn else _part(system, spacing, before=question_is_text),
        user=_part(user, spacing),
        assistant=_part(assistant, spacing, before=question_is_text, behind=_ends_with_text(user, spacing)),
    )


def spaced_tools(name: str, spacing: Spacing) -> ToolDefinition:
    """What the template says of tools, with the same white space."""
    plain, shape = definition(name), tool_definition(name)
    if not spacing.adds and not spacing.swallowing:
        return shape
    call = _pieces(plain, ["function", "assistant"], spacing)
    if TemplateName.of(name).tool_format:
        call = _kept([(slot,) for slot in shape.call], spacing)
    result = _pieces(plain, ["observation", "user"], spacing)
    follows_text = _ends_with_text(_pieces(plain, ["user"], spacing), spacing)
    return replace(
        shape,
        call=_part(call, spacing, before=spacing.begins_with_text(result[0][0]), behind=follows_text),
        result=_part(result, spacing),
    )


def _pieces(shape: Definition, parts: Sequence[str], spacing: Spacing) -> tuple[Slots, ...]:
    """The first of these parts that the template has, as the texts that training gives to the tokenizer one by one."""
    arguments = TemplateName.of(shape.name).registered()
    cut = (source.pieces(arguments, f"format_{part}") for part in parts)
    whole = [(slot,) for slot in getattr(shape, parts[-1])]
    return _kept(next(filter(None, cut), whole), spacing)


def _kept(cut: Iterable[Slots], spacing: Spacing) -> tuple[Slots, ...]:
    return tuple(tuple(map(spacing.swallowed, piece)) for piece in cut)


def _part(cut: Sequence[Slots], spacing: Spacing, before: bool = False, behind: bool = False) -> Slots:
    """A part of a template in one row; whether it stands before or behind text decides where spaces are needed."""
    ends = _ends_with_text(cut, spacing)
    last = (" ",) if spacing.adds == "stretches" and before and ends else ()
    return (*_row(cut, spacing, behind), *last)


def _row(cut: Sequence[Slots], spacing: Spacing, behind: bool) -> Iterator[str | Mark]:
    for piece in cut:
        first = piece[0]
        wanted = behind if spacing.adds == "stretches" else bool(spacing.adds) and not str(first).startswith(" ")
        if wanted and spacing.begins_with_text(first):
            yield " "
        yield from piece
        behind = spacing.ends_with_text(piece[-1])


def _ends_with_text(cut: Sequence[Slots], spacing: Spacing) -> bool:
    return bool(cut) and spacing.ends_with_text(cut[-1][-1])


def _is_text(slot: str | Mark) -> bool:
    return slot is Mark.CONTENT or not isinstance(slot, (Mark, Word))


def _adds(parts: Mapping[str, Mapping[str, Any]]) -> Literal["stretches", "pieces"] | None:
    if parts.get("Prepend", {}).get("prepend") == "▁":
        return "stretches"
    metaspace = parts.get("Metaspace", {"prepend_scheme": "never"})
    scheme = metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never")
    return None if scheme == "never" else "pieces"


def _flat(component: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer, and those that a sequence of them is made of."""
    if component is None:
        return []
    inside = component.get("normalizers") or component.get("pretokenizers") or ()
    return [component, *chain.from_iterable(map(_flat, inside))]
