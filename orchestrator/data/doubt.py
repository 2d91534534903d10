"""Training rows whose label a model doubts that has not seen them.

A logistic regression on the base model's hidden states is fitted ten times, each time without a tenth of the rows, and
asked about that tenth: Northcutt, Jiang & Chuang, Confident learning, JAIR 70 (2021), ranked by its normalised margin.
The trained model itself would not do: it knows wrong labels by heart, too.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.data.checks.finding import Finding, finding
from orchestrator.data.checks.labels import are_labels
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.words import agreeing, counted

if TYPE_CHECKING:
    from orchestrator.data.conversation import Conversation
    from orchestrator.evaluation.intervals import Array

FOLDS = 10
SHARE = 0.1
"""Share of the rows that is named at most."""
KIND = "label_doubtful"
LONGEST = 512
"""Tokens of a text that the model reads."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row, the label that seems likelier, and the probabilities of both, 0 to 1."""

    index: int
    likelier: str
    own: float
    other: float


def doubted(features: Array, labels: Sequence[str], seed: int = 0) -> list[Doubt]:
    """The rows for which another label is likelier out of fold, the most doubtful first, SHARE of all rows at most.

    Raises MissingError without scikit-learn.
    """
    import numpy as np

    try:
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
        from sklearn.model_selection import StratifiedKFold, cross_val_predict  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError(f"scikit-learn cannot be used: {error}", "pip install scikit-learn") from None
    known = sorted(set(labels))
    truth = np.array([known.index(label) for label in labels])
    folds = StratifiedKFold(min(FOLDS, max(Counter(labels).values())), shuffle=True, random_state=seed)
    model = LogisticRegression(C=1.0, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label with fewer rows than there are folds is missing in some
        shares = cross_val_predict(model, features, truth, cv=folds, method="predict_proba")
    rows = np.arange(len(truth))
    own = shares[rows, truth]
    others = shares.copy()
    others[rows, truth] = -1
    likelier = others.argmax(axis=1)
    margin = own - others[rows, likelier]
    order = [int(at) for at in np.argsort(margin, kind="stable") if margin[at] < 0]
    return [
        Doubt(at, known[likelier[at]], float(own[at]), float(others[at, likelier[at]]))
        for at in order[: max(1, round(SHARE * len(rows)))]
    ]


def features(base: Path, texts: Sequence[str]) -> Array:
    """Rows × 2 hidden sizes: the means over the tokens of the middle and of the last hidden states, standardised.

    Each half has unit length on average, so that a classifier's regularisation means the same for every model.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model = AutoModel.from_pretrained(str(base), dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST).input_ids
            states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            found.append([states[at][0].mean(0).numpy() for at in (len(states) // 2, -1)])
    halves = np.array(found, dtype=np.float64)
    spread = halves.std(axis=0)
    halves = (halves - halves.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return np.asarray(np.concatenate(list(halves.transpose(1, 0, 2)), axis=1) / np.sqrt(halves.shape[2]))


def doubtful_labels(rows: Sequence[Conversation], base: Path) -> list[Finding]:
    """A finding that names the doubted rows, the most doubtful first; none where no row is.

    Raises InputError where the answers are no labels.
    """
    labels = [row.answer.strip() for row in rows]
    if not are_labels(Counter(labels)):
        raise InputError("the answers are no labels that could be doubted", "Leave out --with for such rows.")
    found = doubted(features(base, [row.prompt for row in rows]), labels)
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
