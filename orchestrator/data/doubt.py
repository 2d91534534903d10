"""Training rows whose label a model doubts that has not seen them.

A regression on what the base model's hidden states and the text's n-grams say (views.py) predicts the label of each row
from all the others; a row whose label is predicted less than another one is doubted, ranked by the margin between them:
Northcutt, Jiang & Chuang, Confident learning, JAIR 70 (2021). The trained model itself would not do: it knows wrong
labels by heart, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.data.checks.finding import Finding, finding
from orchestrator.data.checks.labels import are_labels
from orchestrator.data.checks.text import label_of
from orchestrator.data.views import ngrams, states
from orchestrator.evaluation.confidence import fitted_temperature, probabilities
from orchestrator.evaluation.leave_one_out import left_out
from orchestrator.lib.errors import InputError
from orchestrator.lib.words import agreeing, counted

if TYPE_CHECKING:
    from orchestrator.data.conversation import Conversation
    from orchestrator.evaluation.intervals import Array

SHARE = 0.1
"""Share of the rows that is named at most."""
KIND = "label_doubtful"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row, the label that seems likelier, and the probabilities of both, 0 to 1."""

    index: int
    likelier: str
    own: float
    other: float


def doubted(views: Sequence[Array], labels: Sequence[str]) -> list[Doubt]:
    """The rows for which another label is likelier, the most doubtful first, SHARE of all rows at most.

    `views` are one or two descriptions of the rows, rows × whatever. There must be two labels or more.
    """
    import numpy as np

    known = sorted(set(labels))
    truth = np.array([known.index(label) for label in labels])
    scores = left_out(views, truth)
    shares = probabilities(scores, fitted_temperature(scores, truth))
    rows = np.arange(len(truth))
    others = scores.copy()
    others[rows, truth] = -np.inf
    likelier = others.argmax(axis=1)
    margin = scores[rows, truth] - others[rows, likelier]
    order = [int(at) for at in np.argsort(margin, kind="stable") if margin[at] < 0]
    return [
        Doubt(at, known[likelier[at]], float(shares[at, truth[at]]), float(shares[at, likelier[at]]))
        for at in order[: max(1, round(SHARE * len(rows)))]
    ]


def doubtful_labels(rows: Sequence[Conversation], base: Path) -> list[Finding]:
    """A finding that names the doubted rows, the most doubtful first; none where no row is.

    Raises InputError where the answers are no labels.
    """
    labels = [label_of(row.answer).strip() for row in rows]
    if not are_labels(Counter(labels)):
        raise InputError("the answers are no labels that could be doubted", "Leave out --with for such rows.")
    texts = [row.prompt for row in rows]
    found = doubted([states(base, texts), ngrams(texts)], labels)
    if not found:
        return []
    said = [
        f"row {rows[one.index].row}: {labels[one.index]!r} ({100 * one.own:.0f} %), rather {one.likelier!r} "
        f"({100 * one.other:.0f} %): {rows[one.index].prompt[:80]}"
        for one in found
    ]
    labels_are = f"{counted(len(found), 'label')} {agreeing(len(found), 'are')}"
    message = f"{labels_are} doubted by a model that has not seen them, the most doubtful first"
    return [finding(KIND, "warning", message, [(rows[one.index].source, rows[one.index].row) for one in found], said)]
