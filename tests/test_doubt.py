"""Labels that a model doubts which has not seen their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data import doubt
from orchestrator.data.conversation import Conversation, Message
from orchestrator.lib.errors import InputError


def clouds(n: int, wrong: int) -> tuple[Any, list[str], set[int]]:
    """Points around three centres, labelled by their centre but for the first `wrong` ones."""
    generator = np.random.default_rng(0)
    truth = np.arange(n) % 3
    points = generator.normal(0, 0.5, (n, 8)) + 2 * np.eye(3, 8)[truth]
    labels = ["体育国际财经"[2 * at : 2 * at + 2] for at in truth]
    for at in range(wrong):
        labels[at] = "体育国际财经"[2 * ((truth[at] + 1) % 3) :][:2]
    return points, labels, set(range(wrong))


def test_planted_wrong_labels_come_first() -> None:
    points, labels, wrong = clouds(300, 20)
    found = doubt.doubted(points, labels)
    assert len({one.index for one in found[:30]} & wrong) >= 18
    assert all(one.own < one.other and one.likelier != labels[one.index] for one in found)


def test_nothing_is_doubted_where_labels_fit() -> None:
    points, labels, _ = clouds(90, 0)
    assert len(doubt.doubted(points, labels)) <= 2


def rows(labels: list[str]) -> list[Conversation]:
    return [
        Conversation((Message("user", f"第 {n} 条"), Message("assistant", label)), source="训练.json", row=n + 1)
        for n, label in enumerate(labels)
    ]


def test_they_are_named_by_file_and_row(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels, wrong = clouds(300, 20)
    monkeypatch.setattr(doubt, "features", lambda base, texts: points)
    (found,) = doubt.doubtful_labels(rows(labels), Path())
    assert found.kind == "label_doubtful" and found.rows[0][0] == "训练.json"
    assert found.rows[0][1] - 1 in wrong
    assert "rather" in found.examples[0] and f"row {found.rows[0][1]}:" in found.examples[0]


def test_free_text_has_no_labels_to_doubt() -> None:
    with pytest.raises(InputError, match="no labels"):
        doubt.doubtful_labels(rows([f"回答 {n}" for n in range(20)]), Path())


def test_a_model_s_features_have_one_row_for_each_text(tiny_model: Path) -> None:
    found = doubt.features(tiny_model, ["Sports cup", "政治 law", "goal"])
    assert found.shape == (3, 128) and np.isfinite(found).all()
