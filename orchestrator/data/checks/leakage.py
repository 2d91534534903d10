"""Held-out rows that the model has seen in training: what is measured on them is memory, not skill."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.data.checks.copies import exact_between, exact_groups, near_between, near_within
from orchestrator.data.checks.corpus import Corpus
from orchestrator.data.checks.finding import MAX_EXAMPLES, Finding, Severity, finding

# A score can be off by as much as the share of leaked rows; 5 points is more than most improvements.
TOLERABLE_SHARE = 0.05
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
        yield _leak("leakage_exact", "error", "held-out rows are in the training set too", same, train, held_out)
    if other:
        message = "held-out rows are in the training set with another answer"
        yield _leak("leakage_label_conflict", "error", message, other, train, held_out)
    near = {j: i for i, j in reversed(near_between(train, held_out)) if j not in exact}
    if near:
        severity: Severity = "error" if len(near) > TOLERABLE_SHARE * len(held_out) else "warning"
        pairs = [(i, j) for j, i in sorted(near.items())]
        message = "held-out rows are nearly in the training set too"
        yield _leak("leakage_near", severity, message, pairs, train, held_out)


def _leak(kind: str, severity: Severity, message: str, pairs: list[Pair], train: Corpus, held_out: Corpus) -> Finding:
    total = f"{len(pairs)} of {len(held_out)} {message}"
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
        yield _copies(corpus, "duplicate_exact", f"{len(rows)} rows repeat an earlier row", repeated, rows)
    if conflicting and labels_task:
        rows = [index for group in conflicting for index in group]
        message = f"{len(conflicting)} prompts have more than one label"
        yield _copies(corpus, "label_conflict", message, conflicting, rows)
    near = [list(pair) for pair in near_within(corpus)]
    if near:
        rows = sorted({pair[1] for pair in near})
        yield _copies(corpus, "duplicate_near", f"{len(rows)} rows nearly repeat an earlier row", near, rows)


def _copies(corpus: Corpus, kind: str, message: str, groups: list[list[int]], rows: list[int]) -> Finding:
    severity: Severity = "error" if kind == "label_conflict" else "warning"
    examples = ["  ~  ".join(corpus.show(index) for index in group[:3]) for group in groups[:MAX_EXAMPLES]]
    return finding(kind, severity, f"{message}, of {len(corpus)}", corpus.places(rows), examples)
