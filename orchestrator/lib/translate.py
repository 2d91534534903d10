"""What a person reads, in the language of the environment; English where there is no translation.

The code, its records and its logs speak English. A text is translated whole where it leaves the tool: it is compared
with the templates that the code makes texts from, and what was filled in is filled into the translation. A text may be
one sentence, lines, columns, or sentences one after another; of several ways to read it that one is taken which leaves
least English.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.lib.files import read_json
from orchestrator.lib.wording import FULL, Template, english, filled, halves, joined
from orchestrator.lib.words import of_one

_HEAD = re.compile(r"\s*(?:[!*·→✓✗■✂…+×-]\s+)?")
"""A mark at the start of a line."""
_NAMED_HEAD = re.compile(r"\s*[→·…✓✗■✂] \S+\s+")
"""A mark, and the name of the stage behind it."""
_IN_BRACKETS = re.compile(r" ?\(([^()]+)\)")


@functools.cache
def catalogue(folder: Path) -> Catalogue:
    """All catalogues of a language together."""
    entries = {text: said for file in sorted(folder.glob("*.json")) for text, said in read_json(file).items()}
    return Catalogue(entries, read_json(folder / "terms.json"))


class Reading(NamedTuple):
    """The translation of a text by one template; of several the least is the best."""

    is_meagre: bool
    left: int
    """Letters of English in what was filled in."""
    is_stretched: bool
    """Whether what stands before a colon is taken for a part of the first value."""
    said: str


class Catalogue:
    """Translations by template. Single words are translated by themselves; in a text only terms, such as metrics are:
    other words that are filled in are names and labels of the user's."""

    def __init__(self, entries: Mapping[str, str | None], terms: Collection[str] = ()) -> None:
        several = {text: said for text, said in entries.items() if said is not None}
        known = {form: said for text, said in several.items() for form in of_one(text)} | several
        self._exact = {text: said for text, said in known.items() if "{}" not in text}
        templates = (Template(text, said) for text, said in known.items() if "{}" in text)
        by_weight = sorted(templates, key=lambda template: template.weight, reverse=True)
        self._templates = [(max(template.parts, key=len), template) for template in by_weight]
        self._terms = frozenset(terms)

    def translated(self, text: str) -> str:
        """The translation of a text, of each of its lines, or of those of its parts that are known."""
        return self._exact.get(text) or self._said(text)

    def _said(self, text: str) -> str:
        return min(self._ways(text), key=english) if english(text) else text

    def _ways(self, text: str) -> Iterator[str]:
        """A text as lines, as columns or as sentences, and as a whole."""
        whole = self._sentence(text)
        if "\n" in text:
            yield "\n".join(map(self.translated, text.split("\n")))
        elif "  " in text.strip():
            yield self._columns(text)
        elif whole is None:
            heads = (pattern.match(text) for pattern in (_HEAD, _NAMED_HEAD))
            yield from (self._behind(text, head.end()) for head in heads if head)
        if whole is not None:
            yield whole

    def _columns(self, text: str) -> str:
        """What stands far apart; behind a mark and a name a single word is ours, such as `failed`."""
        first, *others = re.split(r"(\s{2,})", text)
        say = self.translated if _NAMED_HEAD.match(text) else self._said
        return "".join([self._said(first), *map(say, others)])

    def _behind(self, text: str, head: int) -> str:
        """A text of which the first characters are no part of a sentence."""
        end = len(text.rstrip())
        return f"{text[:head]}{self._sentences(text[head:end])}{text[end:]}"

    # ---- one sentence

    def _sentence(self, text: str) -> str | None:
        """The translation of a text that one template made."""
        if text in self._exact:
            return self._exact[text] if " " in text or text in self._terms else None
        return min(self._readings(text), key=lambda reading: reading[:-1], default=(None,))[-1]

    def _readings(self, text: str) -> Iterator[Reading]:
        for longest, template in self._templates:
            values = template.values(text) if longest in text else None
            if values is None or (template.is_meagre and not all(map(self._is_one, values))):
                continue
            before, separator, first = _prefix(values[0]) if not template.parts[0] else ("", "", "")
            yield self._reading(template, values, bool(before))
            if before:
                reading, before = self._reading(template, [first, *values[1:]], False), self._said(before)
                said = joined(before, separator, reading.said)
                yield reading._replace(left=reading.left + english(before), said=said)

    def _reading(self, template: Template, values: Sequence[str], is_stretched: bool) -> Reading:
        told = list(map(self._said, values))
        return Reading(template.is_meagre, english(*told), is_stretched, filled(template.said, told))

    def _is_one(self, value: str) -> bool:
        """Whether a value is a word, a quotation or a text that is known."""
        return " " not in value.lstrip(";,:. ") or value[0] in "'\"`" or self._sentence(value) is not None

    # ---- several

    def _sentences(self, text: str) -> str:
        """A text that several templates made, one after another."""
        if (said := self._sentence(text)) is not None:
            return said
        if text[-1:] in ".:" and (said := self._sentence(text[:-1])) is not None:
            return said + FULL[f"{text[-1]} "]
        if (inside := re.fullmatch(r"(.+?) \((.+)\)", text)) and (said := self._sentence(inside[1])) is not None:
            return f"{said}（{self._said(inside[2])}）"
        for left, between, right in halves(text):
            if (said := self._sentence(between + right)) is not None:
                return self._said(left) + said
            if (said := self._sentence(right)) is not None:
                return joined(self._said(left), between, said)
        for left, between, right in halves(text):
            if (said := self._sentence(left)) is not None:
                return joined(said, between, self._said(right))
        return _IN_BRACKETS.sub(self._bracket, text)

    def _bracket(self, found: re.Match[str]) -> str:
        said = self._said(found[1])
        return found[0] if said == found[1] else f"（{said}）"


def _prefix(value: str) -> tuple[str, str, str]:
    """What the first gap holds of a text before its sentence: `train.seed: 3` of `train.seed: 3 rows are left out`."""
    before, separator, first = max((value.rpartition(sign) for sign in (": ", "; ")), key=lambda cut: len(cut[0]))
    head = _HEAD.match(first)
    marks = head[0] if head and not separator else ""
    return before + marks, separator, first[len(marks) :]
