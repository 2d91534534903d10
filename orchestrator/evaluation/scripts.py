"""What a word is, in any script.

Words are what ROUGE counts and what a label must match whole. Python's `\\w` leaves out the vowel signs of Indic
scripts and treats a Chinese sentence as one word, hence Unicode properties and jieba.
"""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Callable, Iterable
from typing import cast

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]"
_PIECE = regex.compile(rf"(?V1)(?P<han>\p{{Han}}+)|[{_UNSPACED}]\p{{M}}*|{_WORD}+(?:\.\d+)?%?|[\p{{P}}\p{{S}}]")
_HAN = regex.compile(r"\p{Han}")
_UNSPACED_CHARACTER = regex.compile(f"[{_UNSPACED}]")
_SPACED_CHARACTER = regex.compile(f"(?V1){_WORD}")


def has_han(text: str) -> bool:
    """Whether any Chinese character occurs (Japanese kanji included)."""
    return bool(_HAN.search(text))


def has_unspaced(text: str) -> bool:
    """Whether any script occurs whose words are not told apart by spaces; Hangul counts, for its particles."""
    return bool(_UNSPACED_CHARACTER.search(text))


class Tokenizer:
    """The tokenizer given to rouge-score, whose own one keeps a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        """Words as they are written, and one token for each punctuation mark or symbol; see docs/evaluation.md."""
        tokens: list[str] = []
        for piece in _PIECE.finditer(unicodedata.normalize("NFKC", text)):
            tokens += _cut()(piece.group()) if piece.group("han") else [piece.group()]
        return tokens


@functools.lru_cache(maxsize=1)
def _cut() -> Callable[[str], Iterable[str]]:
    """jieba's segmentation; imported late, because its dictionary costs a second and 100 MB."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return cast(Callable[[str], Iterable[str]], jieba.cut)


def extract_label(answer: str, labels: Iterable[str]) -> str | None:
    """The known label an answer names, or None where it names none or several.

    The whole answer is a label, or else exactly one label occurs in it: as a whole word where words are spaced, as a
    part of the text otherwise. `Tech` inside `Tech Policy` does not count where both are labels.
    """
    known = tuple(labels)
    answer = answer.strip()
    if answer in known:
        return answer
    found = set(_finder(known).findall(answer))
    return str(found.pop()) if len(found) == 1 else None


@functools.lru_cache(maxsize=32)
def _finder(labels: tuple[str, ...]) -> regex.Pattern[str]:
    longest_first = sorted(filter(None, labels), key=len, reverse=True)
    return regex.compile("(?V1)" + ("|".join(map(_whole, longest_first)) or "(?!)"))


def _whole(label: str) -> str:
    before = f"(?<!{_WORD})" if _SPACED_CHARACTER.match(label[0]) else ""
    after = f"(?!{_WORD})" if _SPACED_CHARACTER.match(label[-1]) else ""
    return f"{before}{regex.escape(label, special_only=True)}{after}"
