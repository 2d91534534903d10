"""Data for people who look rather than read: labels, lengths and languages of a set."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.data.checks.corpus import Corpus, build
from orchestrator.data.checks.labels import are_labels
from orchestrator.data.checks.scripts import NAMES
from orchestrator.data.conversation import Kind
from orchestrator.data.reading import read

BINS = 10
_BAR, _ROW, _LEFT, _WIDTH = 420, 24, 220, 720  # pixels of the picture


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
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def charts(self) -> dict[str, list[tuple[str, int]]]:
        """Title → bars, for a terminal or a picture."""
        lengths = [(f"{first}–{last}", rows) for first, last, rows in self.lengths]
        charts = {"label": list(self.labels.items()), "characters": lengths, "script": list(self.scripts.items())}
        return {title: bars for title, bars in charts.items() if bars}


def stats_of_file(path: Path, kind: Kind = "sft") -> Stats:
    """Returns the counts of a data file; raises InputError where it cannot be read."""
    return stats(build(read(path, kind)))


def stats(corpus: Corpus) -> Stats:
    """Returns the counts of a set."""
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


def svg(charts: Mapping[str, Sequence[tuple[str, int]]], title: str) -> str:
    """Returns bar charts as one SVG picture; its texts stay texts, so every script shows with the viewer's fonts."""
    parts, y = [f'<text x="12" y="26" class="t">{html.escape(title)}</text>'], 40
    for name, bars in charts.items():
        parts.append(f'<text x="12" y="{y + 20}" class="h">{html.escape(name)}</text>')
        y += 30
        top = max(rows for _, rows in bars) or 1
        for label, rows in bars:
            parts.append(_bar(label, rows, top, y))
            y += _ROW
        y += 16
    style = ".t{font-size:18px}.h{font-size:14px;font-weight:bold}.l{text-anchor:end}rect{fill:#4477aa}"
    size = f'width="{_WIDTH}" height="{y}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>\n"])


def _bar(label: str, rows: int, top: int, y: int) -> str:
    width = max(1, round(_BAR * rows / top))
    name = html.escape(label if len(label) <= 30 else label[:29] + "…")
    return (
        f'<text x="{_LEFT - 8}" y="{y + 14}" class="l">{name}</text>'
        f'<rect x="{_LEFT}" y="{y + 2}" width="{width}" height="16"/>'
        f'<text x="{_LEFT + width + 6}" y="{y + 14}">{rows:,}</text>'
    )
