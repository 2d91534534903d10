"""Labels that a model doubts which has not seen their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data import doubt, views
from orchestrator.data.conversation import Conversation, Message
from orchestrator.evaluation.leave_one_out import left_out
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
    found = doubt.doubted([points], labels)
    assert len({one.index for one in found[:30]} & wrong) >= 18
    assert all(one.own < one.other and one.likelier != labels[one.index] for one in found)


def test_nothing_is_doubted_where_labels_fit() -> None:
    points, labels, _ = clouds(90, 0)
    assert len(doubt.doubted([points], labels)) <= 2


def rows(labels: list[str]) -> list[Conversation]:
    return [
        Conversation((Message("user", f"第 {n} 条"), Message("assistant", label)), source="训练.json", row=n + 1)
        for n, label in enumerate(labels)
    ]


def test_they_are_named_by_file_and_row(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels, wrong = clouds(300, 20)
    monkeypatch.setattr(doubt, "states", lambda base, texts: points)
    (found,) = doubt.doubtful_labels(rows(labels), Path())
    assert found.kind == "label_doubtful" and found.rows[0][0] == "训练.json"
    assert found.rows[0][1] - 1 in wrong
    assert "rather" in found.examples[0] and f"row {found.rows[0][1]}:" in found.examples[0]


def test_free_text_has_no_labels_to_doubt() -> None:
    with pytest.raises(InputError, match="no labels"):
        doubt.doubtful_labels(rows([f"回答 {n}" for n in range(20)]), Path())


def test_a_model_s_states_have_one_row_for_each_text(tiny_model: Path) -> None:
    found = views.states(tiny_model, ["Sports cup", "政治 law", "goal", ""])
    assert found.shape == (4, 128) and np.isfinite(found).all()
    assert np.allclose(np.linalg.norm(found.reshape(4, 2, 64), axis=2), 1)


def test_a_text_longer_than_the_model_reads_still_ends_as_it_is_asked(tiny_model: Path) -> None:
    long = "球队夺冠 " * views.LONGEST
    found = views.states(tiny_model, [long, long + "不同的结尾", "短"])
    assert np.allclose(found[0], found[1]) and not np.allclose(found[0], found[2])


WORDS = {"体育": "球队教练进球决赛夺冠", "财经": "股市利率银行基金涨跌", "教育": "高考学校招生教师课程"}


def headlines(n: int) -> tuple[list[str], list[str]]:
    """Texts of five characters, each drawn from those of its label's words, and the labels."""
    generator = np.random.default_rng(0)
    labels = [list(WORDS)[at % 3] for at in range(n)]
    return ["".join(generator.choice(list(WORDS[label]), 5)) for label in labels], labels


def test_n_grams_find_wrong_labels_that_a_model_cannot_read() -> None:
    texts, labels = headlines(90)
    noise = np.random.default_rng(1).normal(size=(90, 40))
    wrong = set(range(0, 24, 4))
    given = [list(WORDS)[(at + 1) % 3] if at in wrong else label for at, label in enumerate(labels)]
    assert {one.index for one in doubt.doubted([noise, views.ngrams(texts)], given)} >= wrong
    assert not {one.index for one in doubt.doubted([noise], given)} >= wrong


def test_a_view_that_says_nothing_changes_nothing() -> None:
    points, labels, _ = clouds(90, 6)
    noise = np.random.default_rng(1).normal(size=(90, 40))
    truth = np.unique(labels, return_inverse=True)[1]
    assert np.allclose(left_out([points, noise], truth), left_out([points], truth))


def test_a_copy_of_a_row_whose_label_differs_is_doubted_as_the_row_is() -> None:
    points, labels, _ = clouds(90, 0)
    points[1], labels[1] = points[0], labels[2]
    assert doubt.doubted([points], labels)[0].index == 1


@pytest.mark.parametrize("columns", [5, 40])
def test_rows_are_predicted_as_by_fits_that_have_not_seen_them(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn's ridge regression, fitted once for each row."""
    from sklearn.linear_model import Ridge  # type: ignore[import-untyped]

    monkeypatch.setattr("orchestrator.evaluation.leave_one_out.PENALTIES", [0.3])
    generator = np.random.default_rng(0)
    view, truth = generator.normal(size=(20, columns)), np.arange(20) % 3
    centred = view - view.mean(axis=0)
    rows, wanted = centred / np.sqrt((centred**2).sum() / 20), np.eye(3)[truth]
    for at, found in enumerate(left_out([view], truth)):
        others = np.arange(20) != at
        fit = Ridge(alpha=0.3, tol=1e-10).fit(rows[others], wanted[others])
        assert np.allclose(found, fit.predict(rows[at : at + 1])[0])
