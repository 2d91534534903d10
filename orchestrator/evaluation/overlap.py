"""How much of the expected text came back: ROUGE, BLEU, exact match, length."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import Array, Interval, bootstrap
from orchestrator.evaluation.rows import Row
from orchestrator.evaluation.scripts import Tokenizer, has_han, has_unspaced

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
