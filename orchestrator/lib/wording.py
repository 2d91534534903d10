"""An English template and its translation: what was filled in is read out of a text, and filled in again."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MEAGRE = 8
"""A template of no more letters, such as `{} of {}`, is filled with single words, or with texts that are known."""
FULL = {"; ": "；", ": ": "：", ", ": "，", ". ": "。"}
"""Chinese punctuation."""
_GAP = re.compile(r"\{(\d*)\}")
_SEPARATOR = re.compile(r"; |: |, |\. ")
_ANYTHING = "(.*?)"
_CLAUSE = r"((?:(?:[;,.:\n]| ?\().*?)?)"
"""A clause behind a value, or nothing."""


@dataclass(frozen=True)
class Template:
    """An English text with gaps, and its translation."""

    text: str
    said: str

    @functools.cached_property
    def parts(self) -> list[str]:
        """What stands between the gaps."""
        return self.text.split("{}")

    @property
    def weight(self) -> tuple[int, int]:
        """How much it says by itself: the one that says most is tried first."""
        return sum(map(len, self.parts)), -len(self.parts)

    @functools.cached_property
    def is_meagre(self) -> bool:
        """Whether it has so few letters that it would fit many a sentence of somebody else's."""
        return ":" not in self.parts[0] and sum(map(str.isalpha, "".join(self.parts))) <= MEAGRE

    @functools.cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(_pattern(self.parts, behind), re.DOTALL) for behind in (_CLAUSE, _ANYTHING)]

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


def filled(said: str, values: Sequence[str]) -> str:
    """A translation with its gaps filled, in their order or by their numbers."""
    order = iter(values)
    text = ""
    for place, part in enumerate(_GAP.split(said)):  # texts, and between them the numbers of gaps
        is_gap = place % 2
        text = _beside(text, part if not is_gap else values[int(part)] if part else next(order))
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


def halves(text: str) -> Iterator[tuple[str, str, str]]:
    """A text cut at each of its separators: what stands before, the separator, what stands behind."""
    return ((text[: at.start()], at[0], text[at.end() :]) for at in _SEPARATOR.finditer(text))


def joined(left: str, between: str, right: str) -> str:
    """Two halves, with Chinese punctuation between them; a colon behind a key or a file stays as it is."""
    near = {": ": left[-1:], "; ": left + right}.get(between, left)
    return f"{left}{FULL.get(between, '') if any(map(_is_wide, near)) else between}{right}"


def english(*texts: str) -> int:
    """How many letters are not Chinese."""
    return sum(letter.isascii() and letter.isalpha() for text in texts for letter in text)
