"""Rows that are there twice, exact or near: inside a set, and in the held-out one, whose figures would be memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.data.checks.corpus import Corpus
from orchestrator.data.checks.finding import MAX_EXAMPLES, Finding, Severity, finding
from orchestrator.data.checks.labels import visible
from orchestrator.data.checks.minhash import Indices, Search, similar_between, similar_within
from orchestrator.lib.words import agreeing, counted

# Up to so many pairs of rows the search is sensitive: short bands, many neighbours. Beyond it bands are longer and
# neighbours fewer, so that time grows as n log n: copies with a Jaccard similarity of 0.6 are still found with a
# probability of 99 %, but at 0.4 only with 56 % (1-(1-s^4)^32).
SENSITIVE_PAIRS = 200_000_000
_SENSITIVE = Search(at_least=0.15, width=2, limit=32)
_FAST = Search(at_least=0.35, width=4, limit=8)

# Least likeness (rapidfuzz, 0–100) of a near copy. The most alike of 600 real headlines that are no copies reach 71 in
# English and 55 in Chinese; with one word replaced, 95 % of the copies reach 80 and 83.
_ALIKE = 75.0
_ALIKE_CJK = 65.0
# With different answers only a slip of the pen is a copy: "capital of France" and "capital of Greece" reach 85.
_ALIKE_BUT_ANSWER = 92.0
_ALIKE_LONG = 0.5  # estimated Jaccard similarity of texts too long to be kept; unrelated prose stays below 0.15

_NUMBERS = re.compile(r"\d+")
_CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3]")


def exact_groups(corpus: Corpus) -> list[list[int]]:
    """Returns the rows that ask the same question, where there are at least two, in the order of their first ones."""
    keys = np.array(corpus.question, np.uint64)
    known, counts = np.unique(keys, return_counts=True)
    groups: dict[int, list[int]] = {}
    for index in np.flatnonzero(np.isin(keys, known[counts > 1])).tolist():
        groups.setdefault(corpus.question[index], []).append(index)
    return list(groups.values())


def near_within(corpus: Corpus) -> list[tuple[int, int]]:
    """Returns pairs i < j of rows that are near, but not exact, copies."""
    n = len(corpus)
    pairs = similar_within(corpus.signatures, _search(n * n // 2))
    return _verified(corpus, corpus, pairs)


def near_between(train: Corpus, held_out: Corpus) -> list[tuple[int, int]]:
    """Returns pairs (row of train, row of held_out) that are near, but not exact, copies."""
    pairs = similar_between(train.signatures, held_out.signatures, _search(len(train) * len(held_out)))
    return _verified(train, held_out, pairs)


def exact_between(train: Corpus, held_out: Corpus) -> dict[int, list[int]]:
    """Returns {row of held_out: the rows of train that ask the same question}, where there is one."""
    rows: dict[int, list[int]] = {question: [] for question in held_out.question}
    for index, question in enumerate(train.question):
        if question in rows:
            rows[question].append(index)
    return {index: rows[question] for index, question in enumerate(held_out.question) if rows[question]}


def _search(pairs: int) -> Search:
    return _SENSITIVE if pairs <= SENSITIVE_PAIRS else _FAST


def _verified(left: Corpus, right: Corpus, pairs: Indices) -> list[tuple[int, int]]:
    unequal = ((i, j) for i, j in pairs.tolist() if left.question[i] != right.question[j])
    return [(i, j) for i, j in unequal if _near(left, i, right, j)]


def _near(left: Corpus, i: int, right: Corpus, j: int) -> bool:
    a, b = left.words[i], right.words[j]
    same_answer = left.answer[i] == right.answer[j]
    if a and b:
        return is_near_copy(a, b, same_answer)
    return bool((left.signatures[i] == right.signatures[j]).mean() >= _ALIKE_LONG)


def is_near_copy(a: str, b: str, same_answer: bool = True) -> bool:
    """Whether two texts (as `words_of` returns them) say nearly the same.

    With different answers much less may differ, and no number: "3 + 4" and "3 + 5" are different questions.
    """
    from rapidfuzz import fuzz

    least = _ALIKE_CJK if _CJK.search(a) and _CJK.search(b) else _ALIKE
    if not same_answer:
        least = _ALIKE_BUT_ANSWER
        if _NUMBERS.findall(a) != _NUMBERS.findall(b):
            return False
    return fuzz.ratio(a, b, score_cutoff=least) > 0 or fuzz.token_sort_ratio(a, b, score_cutoff=least) > 0


# A score can be off by as much as the share of leaked rows; 5 points is more than most improvements.
TOLERABLE_SHARE = 0.05
CONTRADICTORY_SHARE = 0.01
"""Of the rows of a set: careful data has so many slips of the hand, which cost less accuracy than that."""
CLEAN = "`orchestrator data clean` leaves such training rows out"
Pair = tuple[int, int]


def leakage(train: Corpus, held_out: Corpus) -> Iterator[Finding]:
    """Yields leakage_exact, leakage_label_conflict and leakage_near."""
    same: list[Pair] = []
    other: list[Pair] = []
    exact = exact_between(train, held_out)
    for j, rows in exact.items():
        agree = held_out.answer[j] in {train.answer[i] for i in rows}
        (same if agree else other).append((rows[0], j))
    if same:
        yield _leak("leakage_exact", "error", "are in the training set too", same, train, held_out)
    if other:
        message = "are in the training set with another answer"
        yield _leak("leakage_label_conflict", "error", message, other, train, held_out)
    near = {j: i for i, j in reversed(near_between(train, held_out)) if j not in exact}
    if near:
        severity: Severity = "error" if len(near) > TOLERABLE_SHARE * len(held_out) else "warning"
        pairs = [(i, j) for j, i in sorted(near.items())]
        message = "are nearly in the training set too"
        yield _leak("leakage_near", severity, message, pairs, train, held_out)


def _leak(kind: str, severity: Severity, message: str, pairs: list[Pair], train: Corpus, held_out: Corpus) -> Finding:
    total = f"{len(pairs)} of {counted(len(held_out), 'held-out row')} {agreeing(len(pairs), message)}; {CLEAN}"
    examples = [f"{train.show(i)}  ~  {held_out.show(j)}" for i, j in pairs[:MAX_EXAMPLES]]
    return finding(kind, severity, total, held_out.places(j for _, j in pairs), examples)


def duplicates(corpus: Corpus, *, labels_task: bool) -> Iterator[Finding]:
    """Yields duplicate_exact, label_conflict (labels only) and duplicate_near of one set."""
    repeated: list[list[int]] = []
    conflicting: list[list[int]] = []
    for group in exact_groups(corpus):
        agree = len({corpus.answer[index] for index in group}) == 1
        (repeated if agree else conflicting).append(group)
    if repeated:
        rows = [index for group in repeated for index in group[1:]]
        message = f"{counted(len(rows), 'row')} {agreeing(len(rows), 'repeat')} an earlier row"
        found = _copies(corpus, "duplicate_exact", message, repeated, rows)
        yield replace(found, message=f"{found.message}; `orchestrator data clean` leaves them out")
    if conflicting and labels_task:
        rows = [index for group in conflicting for index in group]
        yield _conflicts(corpus, conflicting, rows)
    near = [list(pair) for pair in near_within(corpus)]
    if near:
        rows = sorted({pair[1] for pair in near})
        message = f"{counted(len(rows), 'row')} nearly {agreeing(len(rows), 'repeat')} an earlier row"
        yield _copies(corpus, "duplicate_near", message, near, rows)


def _conflicts(corpus: Corpus, groups: list[list[int]], rows: list[int]) -> Finding:
    """label_conflict: each prompt with the labels it was given; an error where more than 1 % of the rows are wrong."""
    wrong = sum(contradicting([corpus.answer[index] for index in group]) for group in groups)
    share = wrong / len(corpus)
    severity: Severity = "error" if share > CONTRADICTORY_SHARE else "warning"
    message = (
        f"{counted(len(groups), 'prompt')} {agreeing(len(groups), 'have')} more than one label, so at least "
        f"{wrong} of {counted(len(corpus), 'row')} {agreeing(wrong, 'are')} wrong: correct them by hand"
    )
    examples = [
        "  ~  ".join(f"{corpus.show(index)} → {visible(corpus.label_of(index))}" for index in _differing(corpus, group))
        for group in groups[:MAX_EXAMPLES]
    ]
    return finding("label_conflict", severity, message, corpus.places(rows), examples)


def contradicting(answers: Sequence[int]) -> int:
    """How many of the answers to one question are not the most frequent one."""
    return len(answers) - max(Counter(answers).values())


def _differing(corpus: Corpus, group: list[int]) -> list[int]:
    """The first row of each answer in a group, three at most."""
    first: dict[int, int] = {}
    for index in group:
        first.setdefault(corpus.answer[index], index)
    return list(first.values())[:3]


def _copies(corpus: Corpus, kind: str, message: str, groups: list[list[int]], rows: list[int]) -> Finding:
    examples = ["  ~  ".join(corpus.show(index) for index in group[:3]) for group in groups[:MAX_EXAMPLES]]
    return finding(kind, "warning", f"{message}, of {len(corpus)}", corpus.places(rows), examples)
