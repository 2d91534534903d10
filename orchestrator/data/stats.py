"""Data for people who look rather than read: labels, lengths and languages of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.data.checks.corpus import build
from orchestrator.data.checks.labels import are_labels
from orchestrator.data.checks.scripts import NAMES
from orchestrator.data.conversation import Kind
from orchestrator.data.reading import read

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
    scripts = np.bincount(np.concatenate(corpus.script), minlength=len(NAMES)) if len(corpus) else ()
    return Stats(
        rows=len(corpus),
        unusable=len(corpus.problems),
        labels=dict(corpus.labels.most_common()) if are_labels(corpus.labels) else {},
        lengths=_histogram(lengths),
        median=int(np.median(lengths)) if len(lengths) else 0,
        longest=int(lengths.max()) if len(lengths) else 0,
        scripts={name: int(rows) for name, rows in zip(NAMES, scripts, strict=False) if rows},
    )


def _histogram(lengths: npt.NDArray[np.uint32]) -> list[tuple[int, int, int]]:
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    edges = np.unique(np.linspace(low, high + 1, BINS + 1).astype(int))
    counts, _ = np.histogram(lengths, edges)
    return [(int(first), int(end) - 1, int(n)) for first, end, n in zip(edges, edges[1:], counts, strict=False)]
