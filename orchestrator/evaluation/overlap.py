r"""How much of the expected text came back: ROUGE, BLEU, exact match, length.

Words are what ROUGE counts and what a label must match whole. Python's `\w` leaves out the vowel signs of Indic
scripts and treats a Chinese sentence as one word, hence Unicode properties and jieba.
"""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import regex

from orchestrator.evaluation.intervals import Array, Interval, bootstrap
from orchestrator.evaluation.rows import Row

ROUGE = ("rouge1", "rouge2", "rougeL")


def overlap_metrics(rows: Sequence[Row], seed: int = 0) -> dict[str, Interval]:
    """ROUGE-1/2/L, BLEU, exact match, and the answers' length as a percentage of the labels'."""
    statistics = np.array([_statistics(row) for row in rows], dtype=np.float64)
    return bootstrap(statistics, functools.partial(_figures, len(rows)), seed, unbounded=("length_ratio",))


@functools.lru_cache(maxsize=1 << 16)
def rouge(label: str, answer: str) -> tuple[float, float, float]:
    """ROUGE-1, 2 and L F-measures of one pair, 0 to 100.

    Identical texts score 100 even where they hold no pair of words, for which rouge-score says ROUGE-2 is 0.
    """
    if label == answer:
        return (100.0, 100.0, 100.0)
    scores = _rouge_scorer().score(label, answer)
    return tuple(100 * scores[name].fmeasure for name in ROUGE)


def _statistics(row: Row) -> list[float]:
    """ROUGE ×3, exact, then BLEU's lengths ×2, matches ×4 and n-grams ×4: all that the figures need of a row."""
    bleu = _bleu_scorer(_bleu_tokenizer(row.truth)).sentence_score(row.answer, [row.truth])
    exact = row.answer == row.truth
    return [*rouge(row.truth, row.answer), exact, bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals]


def _figures(n: int, sums: Array) -> Mapping[str, Array]:
    means = {name: sums[:, i] / n for i, name in enumerate(ROUGE)}
    return means | {
        "bleu": np.array([_bleu(total) for total in sums[:, 4:]]),
        "exact_match": 100 * sums[:, 3] / n,
        "length_ratio": 100 * sums[:, 4] / np.maximum(sums[:, 5], 1),
    }


def _bleu(sums: Array) -> float:
    """Corpus BLEU; effective order, or texts of fewer than four words could never score."""
    from sacrebleu.metrics.bleu import BLEU

    answered, expected, *ngrams = (int(x) for x in sums)
    return float(
        BLEU.compute_bleu(ngrams[:4], ngrams[4:], answered, expected, smooth_method="exp", effective_order=True).score
    )


def _bleu_tokenizer(text: str) -> str:
    """sacrebleu's name for: Chinese by character, other unspaced scripts by character, the rest as in WMT."""
    if has_han(text):
        return "zh"
    return "char" if has_unspaced(text) else "13a"


@functools.cache
def _bleu_scorer(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), tokenizer=Tokenizer())


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
