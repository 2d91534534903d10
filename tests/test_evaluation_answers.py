"""A model that answers nothing, or the same to everything, is told from one that answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.evaluation.compare import agreement
from orchestrator.evaluation.measure import Task, measure, untold, useless, with_thoughts
from orchestrator.evaluation.rows import Row


def rows(*pairs: tuple[str, str]) -> list[Row]:
    return [Row(str(number), "新闻", label, answer) for number, (label, answer) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("task", "answered", "reason"),
    [
        ("classification", [("体育", ""), ("财经", " \n")], "all 2 answers are empty"),
        ("generation", [("a", "<think>hm"), ("b", "")], "all 2 answers are empty; thoughts without"),
        ("classification", [("体育", "体育"), ("财经", "体育")], "it answers '体育' to all 2 rows, which"),
        ("classification", [("体育", "体育。"), ("财经", "是体育")], "it answers '体育' to all 2 rows"),
        ("classification", [("a", "!!"), ("b", "!!"), ("b", "")], "it answers '!!' to 2 of 3 rows and nothing"),
        ("generation", [("one", "x" * 99), ("two", "x" * 99)], f"it answers '{'x' * 60}…' to all 2 rows"),
    ],
)  # fmt: skip
def test_useless(task: Task, answered: Sequence[tuple[str, str]], reason: str) -> None:
    said = useless(rows(*answered), task)
    assert said is not None and said.startswith(reason)


@pytest.mark.parametrize(
    ("task", "answered"),
    [
        ("classification", [("体育", "体育"), ("财经", "财经")]),
        ("classification", [("体育", "财经"), ("财经", "体育")]),  # wrong, but it looks at what it is asked
        ("classification", [("体育", "体育"), ("体育", "体育")]),  # nothing else was expected
        ("classification", [("a", "what?"), ("b", "who?")]),
        ("generation", [("one", "x"), ("two", "y"), ("three", "")]),
    ],
)
def test_useful(task: Task, answered: Sequence[tuple[str, str]]) -> None:
    assert useless(rows(*answered), task) is None


def test_rows_of_one_label_cannot_tell() -> None:
    said = untold(rows(("体育", "体育"), ("体育", "财经")))
    assert said is not None and said.startswith("all 2 held-out rows expect '体育': a model that always says so")
    assert untold(rows(("体育", "体育"), ("财经", "财经"))) is None
    assert untold(rows(("体育", "体育"))) is None


def test_answers_are_measured_with_thoughts_stripped_and_shown() -> None:
    label = "<think>\n油价 上涨\n</think>\n\n财经"
    said = with_thoughts(rows((label, label), (label, "<think>\n关于 体育\n</think>\n\n财经"), (label, "财经")))

    assert said is not None and said.startswith(
        "2 of 3 answers have a thought, which every figure leaves out; ROUGE-L is"
    )
    assert "is 100.0 (29.2–100.0) without thoughts, 61.1 (" in said and said.endswith(" of thought and answer together")
    assert with_thoughts(rows(("财经", "财经"))) is None


def test_two_silences_are_no_agreement() -> None:
    silent = rows(("a", ""), ("b", ""), ("a", ""), ("b", ""))
    assert agreement(silent, silent) is None
    some = rows(("a", "a"), ("b", "b"), ("a", ""), ("b", ""))
    other = rows(("a", "a"), ("b", ""), ("a", "a"), ("b", ""))
    found = agreement(some, other)
    assert found is not None and found.value == pytest.approx(100 / 3)  # of three that one of them answers


def test_the_share_of_empty_answers_is_a_figure() -> None:
    found = measure(rows(("a", "a"), ("b", ""), ("a", ""), ("b", "b")), "classification").metrics["empty_rate"]
    assert found.value == 50 and found.low < 50 < found.high
