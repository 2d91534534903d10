"""Holding rows out: by label, by seed, and never a copy on both sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

from orchestrator.data.checks.copies import exact_groups, near_within
from orchestrator.data.checks.corpus import build
from orchestrator.data.checks.labels import are_labels
from orchestrator.data.conversation import Conversation
from orchestrator.errors import InputError

Halves = tuple[list[Conversation], list[Conversation]]


def split(
    rows: Sequence[Conversation], fraction: float, *, seed: int = 42, groups: Sequence[Hashable] | None = None
) -> Halves:
    """Returns (rows to train on, rows to hold out), both in their old order; the same seed gives the same halves.

    Each label gives `fraction` of its rows, at least one where it has two. Exact and near copies stay together, and so
    do rows of equal `groups` (one value a row; None stands alone). Raises InputError if nothing can be held out.
    """
    corpus = build(rows)
    stratify = bool(label_counts(rows))
    labels = [row.answer.strip() if stratify else "" for row in rows]
    joined = [*exact_groups(corpus), *near_within(corpus), *_equal(groups or ())]
    held_out = _choose(list(_together(len(rows), joined)), labels, fraction, random.Random(seed))
    if not held_out:
        raise InputError(
            f"{fraction:.0%} of {len(rows)} rows cannot be held out: they belong together, or are too few",
            "give more rows, a larger fraction, or groups that are smaller",
        )
    halves: Halves = ([], [])
    for index, row in enumerate(rows):
        halves[index in held_out].append(row)
    return halves


def label_counts(rows: Sequence[Conversation]) -> Counter[str]:
    """Returns how often each label occurs, or nothing when the answers are no labels."""
    counts = Counter(row.answer for row in rows)
    return counts if are_labels(counts) else Counter()


def _equal(groups: Sequence[Hashable]) -> Iterator[list[int]]:
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(index)
    yield from members.values()


def _together(count: int, joined: Iterable[Sequence[int]]) -> Iterator[list[int]]:
    """Yields every row once, in clusters of rows that are joined directly or through others (union-find)."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for group in joined:
        for index in group[1:]:
            parent[root(index)] = root(group[0])
    clusters: dict[int, list[int]] = {}
    for index in range(count):
        clusters.setdefault(root(index), []).append(index)
    yield from clusters.values()


def _choose(clusters: list[list[int]], labels: Sequence[str], fraction: float, random_: random.Random) -> set[int]:
    """Takes clusters in random order while they fill, more than they overfill, what their labels still lack."""
    total = Counter(labels)
    lacking = {label: max(round(count * fraction), min(1, count - 1)) for label, count in total.items()}
    chosen: set[int] = set()
    random_.shuffle(clusters)
    for cluster in clusters:
        counts = Counter(labels[index] for index in cluster)
        useful = sum(min(count, lacking[label]) for label, count in counts.items())
        if 2 * useful > len(cluster) and len(cluster) + len(chosen) < len(labels):
            chosen.update(cluster)
            for label, count in counts.items():
                lacking[label] = max(0, lacking[label] - count)
    return chosen
