"""Findings about what stands in the rows: unusable rows, odd characters, sizes, languages, cut texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orchestrator.data.checks.corpus import Corpus
from orchestrator.data.checks.finding import Finding, Severity, finding
from orchestrator.data.checks.text import SCRIPT_NAMES, SIGNS
from orchestrator.data.reading import RowProblem
from orchestrator.lib.words import agreeing, counted

FEW_HELD_OUT = 50  # below, a 95 % interval of an accuracy is wider than ±14 points
_HUGE = 20  # times the median length
_HUGE_AT_LEAST = 4000  # characters
_MAJORITY = 0.8  # share of the rows that makes a script the set's own
_CUT_ROWS = 5  # rows of exactly the greatest length look like an export that cuts
_CUT_LENGTH = 200
_STOPPED = 0.2  # share of long answers without a final mark that still is an exception, not a style
_GIVEN_AWAY = 0.2  # share of prompts that name their own label
_INFO = ("markup",)
Lengths = npt.NDArray[np.uint32]


def content_findings(corpus: Corpus, *, labels_task: bool) -> Iterator[Finding]:
    """Yields what is odd about the rows of one set, one finding a kind."""
    yield from problem_findings(corpus.problems)
    for sign, words in SIGNS.items():
        if rows := corpus.signs.get(sign):
            yield _some(corpus, sign, "info" if sign in _INFO else "warning", words, rows)
    if not len(corpus):
        return
    lengths = np.frombuffer(corpus.length, np.uint32)
    yield from _huge(corpus, lengths)
    yield from _truncated(corpus, lengths, labels_task)
    yield from _mixed(corpus)
    rows = corpus.signs.get("label_in_prompt", [])
    if labels_task and rows:
        severity: Severity = "warning" if len(rows) > _GIVEN_AWAY * len(corpus) else "info"
        yield _some(corpus, "label_in_prompt", severity, "name their own label in the prompt", rows)


def problem_findings(problems: list[RowProblem]) -> Iterator[Finding]:
    """Yields one error for each kind of row that cannot be trained on."""
    kinds: dict[str, list[RowProblem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    for kind, some in kinds.items():
        examples = [str(problem) for problem in some]
        message = f"{counted(len(some), 'row')} cannot be used: {some[0].message}"
        yield finding(kind, "error", message, [(problem.source, problem.row) for problem in some], examples)


def _some(corpus: Corpus, kind: str, severity: Severity, words: str, rows: list[int]) -> Finding:
    examples = [corpus.show(row) for row in rows[:5]]
    message = f"{len(rows)} of {counted(len(corpus), 'row')} {agreeing(len(rows), words)}"
    return finding(kind, severity, message, corpus.places(rows), examples)


def _huge(corpus: Corpus, lengths: Lengths) -> Iterator[Finding]:
    limit = max(_HUGE_AT_LEAST, _HUGE * float(np.median(lengths)))
    if rows := np.flatnonzero(lengths > limit).tolist():
        words = f"are far longer than the median of {np.median(lengths):,.0f} characters: up to {lengths.max():,}"
        yield _some(corpus, "huge_row", "warning", words, rows)


def _truncated(corpus: Corpus, lengths: Lengths, labels_task: bool) -> Iterator[Finding]:
    longest = np.flatnonzero(lengths == lengths.max()).tolist()
    different = len({corpus.question[row] for row in longest})
    if lengths.max() >= _CUT_LENGTH and different >= _CUT_ROWS and lengths.min() < lengths.max():
        words = f"have exactly the greatest length, {lengths.max()} characters: were they cut on the way here?"
        yield _some(corpus, "truncated_text", "warning", words, longest)
    stopped = corpus.signs.get("unfinished", [])
    if not labels_task and stopped and len(stopped) <= _STOPPED * corpus.long_answers:
        yield _some(corpus, "truncated_text", "warning", "have answers that stop in the middle of a sentence", stopped)


def _mixed(corpus: Corpus) -> Iterator[Finding]:
    scripts = np.concatenate(corpus.script)
    counts = np.bincount(scripts, minlength=len(SCRIPT_NAMES))
    main = int(counts[:-1].argmax())
    strangers = np.flatnonzero((scripts != main) & (scripts != len(SCRIPT_NAMES) - 1)).tolist()
    if strangers and counts[main] >= _MAJORITY * len(corpus):
        words = f"are not written in the {SCRIPT_NAMES[main]} script of the others"
        yield _some(corpus, "mixed_language", "info", words, strangers)
