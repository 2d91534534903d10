"""What a person reads, in the language of the environment; English where there is no translation.

The code, its records and its logs speak English. A text is translated whole where it leaves the tool: it is compared
with the templates that the code makes texts from, and what was filled in is filled into the translation.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib.files import read_json
from orchestrator.lib.words import of_one

CATALOGUES = {"zh": Path(__file__).parent / "zh"}
"""Language → a folder of catalogues, one for each room: {English template: translation, or null}.

`{}` stands for what is filled in, in the same order in both, or by number in the translation: `{1}` is the second.
Null: a text of the code that no person reads.
"""
MEAGRE = 8
"""A template of no more letters, such as `{} of {}`, is filled with single words, or with texts that are known."""

_GAP = re.compile(r"\{(\d*)\}")
_HEAD = re.compile(r"\s*(?:[!*·→✓✗■✂…+×-]\s+)?")
"""A mark at the start of a line."""
_NAMED_HEAD = re.compile(r"\s*[→·…✓✗■✂] \S+\s+")
"""A mark, and the name of the stage behind it."""
_SEPARATOR = re.compile(r"; |: |, |\. ")
_FULL = {"; ": "；", ": ": "：", ", ": "，", ". ": "。"}
_ANYTHING = "(.*?)"
_CLAUSE = r"((?:(?:[;,.:\n]| ?\().*?)?)"
"""A clause behind a value, or nothing."""
_IN_BRACKETS = re.compile(r" ?\(([^()]+)\)")


def localised(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text in the language of the environment, or as it is."""
    folder = CATALOGUES.get(language(environment))
    return catalogue(folder).translated(text) if folder else text


def language(environment: Mapping[str, str]) -> str:
    """The language of messages, such as `zh`, by the precedence of POSIX: LC_ALL, LC_MESSAGES, LANG."""
    chosen = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return re.split(r"[_.@-]", chosen)[0].lower()


@functools.cache
def catalogue(folder: Path) -> Catalogue:
    """All catalogues of a language together."""
    entries = {text: said for file in sorted(folder.glob("*.json")) for text, said in read_json(file).items()}
    return Catalogue(entries, read_json(folder / "terms.json"))


class Catalogue:
    """Translations by template. Single words are translated by themselves; in a text only terms, such as metrics are:
    other words that are filled in are names and labels of the user's."""

    def __init__(self, entries: Mapping[str, str | None], terms: Collection[str] = ()) -> None:
        several = {text: said for text, said in entries.items() if said is not None}
        known = {form: said for text, said in several.items() for form in of_one(text)} | several
        self._exact = {text: said for text, said in known.items() if "{}" not in text}
        with_gaps = sorted((text for text in known if "{}" in text), key=_weight, reverse=True)
        templates = (Template(tuple(text.split("{}")), known[text]) for text in with_gaps)
        self._templates = [(max(template.parts, key=len), template) for template in templates]
        self._terms = frozenset(terms)

    def translated(self, text: str) -> str:
        """The translation of a text, of each of its lines, or of those of its parts that are known."""
        return self._exact.get(text) or self._said(text)

    def _said(self, text: str) -> str:
        if not any(letter.isascii() and letter.isalpha() for letter in text):
            return text
        whole = self._sentence(text)
        if "\n" in text:
            lines = "\n".join(map(self.translated, text.split("\n")))
            return lines if whole is None else min(lines, whole, key=_letters)
        if "  " in text.strip():
            columns = self._columns(re.split(r"(\s{2,})", text), is_marked=bool(_NAMED_HEAD.match(text)))
            return columns if whole is None else min(columns, whole, key=_letters)
        if whole is not None:
            return whole
        heads = [found.end() for found in (_HEAD.match(text), _NAMED_HEAD.match(text)) if found]
        return min((self._behind(text, head) for head in heads), key=_letters)

    def _columns(self, parts: Sequence[str], is_marked: bool) -> str:
        """What stands far apart; behind a mark and a name a single word is ours, such as `failed`."""
        say = self.translated if is_marked else self._said
        return "".join([self._said(parts[0]), *map(say, parts[1:])])

    def _behind(self, text: str, head: int) -> str:
        """A text of which the first characters are no part of a sentence."""
        end = len(text.rstrip())
        return f"{text[:head]}{self._parts(text[head:end])}{text[end:]}"

    def _sentence(self, text: str) -> str | None:
        """The translation of a text that one template made: of those that fit, by the one that leaves least."""
        if text in self._exact:
            return self._exact[text] if " " in text or text in self._terms else None
        return min(self._ways(text), key=lambda way: way[:-1], default=(None,))[-1]

    def _ways(self, text: str) -> Iterator[tuple[bool, int, bool, str]]:
        """Translations, the best one the least: whether its template is meagre, how much it leaves, and whether it
        takes what stands before a colon for a part of a value."""
        for longest, template in self._templates:
            values = template.values(text) if longest in text else None
            if values is None or (template.is_meagre and not all(map(self._is_one, values))):
                continue
            told = list(map(self._said, values))
            before, separator, first = _prefix(values[0]) if not template.parts[0] else ("", "", "")
            yield template.is_meagre, _letters(*told), bool(before), filled(template.said, told)
            if before:
                told[0], before = self._said(first), self._said(before)
                whole = filled(template.said, told)
                whole = _joined(before, separator, whole) if separator else before + whole
                yield template.is_meagre, _letters(before, *told), False, whole

    def _is_one(self, value: str) -> bool:
        """Whether a value is a word, a quotation or a text that is known."""
        return " " not in value.lstrip(";,:. ") or value[0] in "'\"`" or self._sentence(value) is not None

    def _parts(self, text: str) -> str:
        """A text that several templates made, one after another."""
        if (said := self._sentence(text)) is not None:
            return said
        if text[-1:] in ".:" and (said := self._sentence(text[:-1])) is not None:
            return said + _FULL[f"{text[-1]} "]
        if (inside := re.fullmatch(r"(.+?) \((.+)\)", text)) and (said := self._sentence(inside[1])) is not None:
            return f"{said}（{self._said(inside[2])}）"
        for left, between, right in _halves(text):
            if (said := self._sentence(between + right)) is not None:
                return self._said(left) + said
            if (said := self._sentence(right)) is not None:
                return _joined(self._said(left), between, said)
        for left, between, right in _halves(text):
            if (said := self._sentence(left)) is not None:
                return _joined(said, between, self._said(right))
        return _IN_BRACKETS.sub(self._bracket, text)

    def _bracket(self, found: re.Match[str]) -> str:
        said = self._said(found[1])
        return found[0] if said == found[1] else f"（{said}）"


def _weight(template: str) -> tuple[int, int]:
    """How much a template says by itself: the one that says most is tried first."""
    return len(template.replace("{}", "")), -template.count("{}")


@dataclass(frozen=True)
class Template:
    """An English text with gaps, and its translation."""

    parts: tuple[str, ...]
    """What stands between the gaps."""
    said: str

    @functools.cached_property
    def is_meagre(self) -> bool:
        """Whether it has so few letters that it would fit many a sentence of somebody else's."""
        return ":" not in self.parts[0] and sum(map(str.isalpha, "".join(self.parts))) <= MEAGRE

    @functools.cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(_pattern(self.parts, behind), re.DOTALL) for behind in (_CLAUSE, _ANYTHING))

    def values(self, text: str) -> list[str] | None:
        """What was filled in; None where the text was not made from this template."""
        first, *_, last = self.parts
        if not text.startswith(first) or not text.endswith(last) or any(part not in text for part in self.parts):
            return None
        found = next((found for pattern in self._patterns if (found := pattern.fullmatch(text))), None)
        return list(found.groups()) if found else None


def _pattern(parts: Sequence[str], behind: str) -> str:
    """`behind` is what a gap right behind another one may hold."""
    gaps = [_ANYTHING if number == 0 or parts[number] else behind for number in range(len(parts) - 1)]
    return "".join(re.escape(part) + gap for part, gap in zip(parts, [*gaps, ""], strict=True))


def _prefix(value: str) -> tuple[str, str, str]:
    """What the first gap holds of a text before its sentence: `train.seed: 3` of `train.seed: 3 rows are left out`."""
    before, separator, first = max((value.rpartition(sign) for sign in (": ", "; ")), key=lambda cut: len(cut[0]))
    head = _HEAD.match(first)
    marks = head[0] if head and not separator else ""
    return before + marks, separator, first[len(marks) :]


def _letters(*texts: str) -> int:
    """How much of some texts is not Chinese."""
    return sum(letter.isascii() and letter.isalpha() for text in texts for letter in text)


def filled(said: str, values: list[str]) -> str:
    """A translation with its gaps filled, in their order or by their numbers."""
    order = iter(range(len(values)))
    text = ""
    for part, gap in zip(_GAP.split(said)[::2], [*_GAP.finditer(said), None], strict=True):
        text = _beside(text, part)
        if gap:
            text = _beside(text, values[int(gap[1]) if gap[1] else next(order)])
    return text


def _beside(left: str, right: str) -> str:
    """Two texts, one after the other; no space stands between two Chinese characters."""
    if left[-1:] == " " and _is_wide(left[-2:-1]) and _is_wide(right[:1]):
        left = left[:-1]
    elif right[:1] == " " and _is_wide(left[-1:]) and _is_wide(right[1:2]):
        right = right[1:]
    return left + right


def _is_wide(letter: str) -> bool:
    return "\u2e80" <= letter <= "\uffef"


def _halves(text: str) -> Iterator[tuple[str, str, str]]:
    return ((text[: at.start()], at[0], text[at.end() :]) for at in _SEPARATOR.finditer(text))


def _joined(left: str, between: str, right: str) -> str:
    """Two halves, with Chinese punctuation between them; a colon behind a key or a file stays as it is."""
    near = {": ": left[-1:], "; ": left + right}.get(between, left)
    return f"{left}{_FULL[between] if any(map(_is_wide, near)) else between}{right}"
