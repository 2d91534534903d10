"""Holding rows out: by label, by seed, and never a copy on both sides; and a set's labels, lengths and languages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.data.checks.copies import exact_groups, near_within
from orchestrator.data.checks.corpus import build
from orchestrator.data.checks.labels import are_labels
from orchestrator.data.checks.text import SCRIPT_NAMES, label_of
from orchestrator.data.conversation import Conversation, Kind
from orchestrator.data.reading import read
from orchestrator.lib.errors import InputError

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
    labels = [label_of(row.answer).strip() if stratify else "" for row in rows]
    joined = [*exact_groups(corpus), *near_within(corpus), *_members(groups or ())]
    held_out = _choose(_clusters(len(rows), joined), labels, fraction, random.Random(seed))
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
    counts = Counter(label_of(row.answer) for row in rows)
    return counts if are_labels(counts) else Counter()


def _members(values: Iterable[Hashable]) -> list[list[int]]:
    """The places of each value but None, in the order of their first ones."""
    members: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        members.setdefault(value, []).append(index)
    members.pop(None, None)
    return list(members.values())


def _clusters(count: int, joined: Iterable[Sequence[int]]) -> list[list[int]]:
    """Every row once, in clusters of rows that are joined directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array([(group[0], index) for group in joined for index in group[1:]], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
    _, clusters = connected_components(graph, directed=False)
    return _members(clusters.tolist())


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


BINS = 10


@dataclass(frozen=True)
class Stats:
    """Counts of a set. Lengths are characters of question and answer together; bins are `(first, last, rows)`."""

    rows: int
    unusable: int
    labels: Mapping[str, int]  # empty when the answers are no labels
    lengths: Sequence[tuple[int, int, int]]
    median: int
    longest: int
    scripts: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The counts by name, for scripts."""
        return asdict(self)

    def charts(self) -> dict[str, list[tuple[str, int]]]:
        """Title → bars."""
        lengths = [(f"{first}–{last}", rows) for first, last, rows in self.lengths]
        charts = {"label": list(self.labels.items()), "characters": lengths, "script": list(self.scripts.items())}
        return {title: bars for title, bars in charts.items() if bars}


def stats_of_file(path: Path, kind: Kind = "sft") -> Stats:
    """Returns the counts of a data file; raises InputError where it cannot be read."""
    corpus = build(read(path, kind))
    lengths = np.frombuffer(corpus.length, np.uint32) if len(corpus) else np.zeros(0, np.uint32)
    scripts = np.bincount(np.concatenate(corpus.script), minlength=len(SCRIPT_NAMES)) if len(corpus) else ()
    return Stats(
        rows=len(corpus),
        unusable=len(corpus.problems),
        labels=dict(corpus.labels.most_common()) if are_labels(corpus.labels) else {},
        lengths=_histogram(lengths),
        median=int(np.median(lengths)) if len(lengths) else 0,
        longest=int(lengths.max()) if len(lengths) else 0,
        scripts={name: int(rows) for name, rows in zip(SCRIPT_NAMES, scripts, strict=False) if rows},
    )


def _histogram(lengths: npt.NDArray[np.uint32]) -> list[tuple[int, int, int]]:
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    edges = np.unique(np.linspace(low, high + 1, BINS + 1).astype(int))
    counts, _ = np.histogram(lengths, edges)
    return [(int(first), int(end) - 1, int(n)) for first, end, n in zip(edges, edges[1:], counts, strict=False)]
