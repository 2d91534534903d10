"""Points, Optuna's journal, ranking: the pure rooms of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.executors.local import slots
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_json
from orchestrator.machine.environment import visible
from orchestrator.spec.editing import edited
from orchestrator.spec.rules import doubts
from orchestrator.spec.sections import Evaluate, Spec, Sweep
from orchestrator.sweep.display import conclusions, fitted
from orchestrator.sweep.ranking import rank, ranking
from orchestrator.sweep.records import best_trial, is_best
from orchestrator.sweep.space import grid, label, values_of
from orchestrator.sweep.study import Study, Trial


def sweep(**values: Any) -> Sweep:
    return Sweep.model_validate_json(json.dumps(values))


@pytest.mark.parametrize(
    ("space", "values"),
    [
        ([1, "二", None], [1, "二", None]),
        ({"low": 1, "high": 7, "step": 3}, [1, 4, 7]),
        ({"low": 0.1, "high": 0.5, "step": 0.2}, [0.1, 0.3, 0.5]),
        ({"low": 0.1, "high": 0.4, "step": 0.2}, [0.1, 0.3]),
    ],
)
def test_values_of_a_space(space: Any, values: list[Any]) -> None:
    assert values_of(space) == values


def test_a_grid_has_every_combination_in_order() -> None:
    found = grid({"learning_rate": [1e-4, 5e-4], "data.train": ["甲.json", "乙.json"]})
    assert [list(point.values()) for point in found] == [
        [1e-4, "甲.json"],
        [1e-4, "乙.json"],
        [5e-4, "甲.json"],
        [5e-4, "乙.json"],
    ]
    assert label(found[1]) == "learning_rate=0.0001 train=乙.json"


@pytest.mark.parametrize(
    ("parallel", "gpus", "cores", "expected"),
    [
        (1, [], 8, [{"OMP_NUM_THREADS": "8"}]),
        (3, [], 8, [{"OMP_NUM_THREADS": "2"}] * 3),
        (4, [], 2, [{"OMP_NUM_THREADS": "1"}] * 4),
        ("auto", [], 8, [{"OMP_NUM_THREADS": "4"}] * 2),
        ("auto", [], 2, [{"OMP_NUM_THREADS": "1"}] * 2),
        ("auto", [], 1, [{"OMP_NUM_THREADS": "1"}]),
        ("auto", ["0", "1"], 8, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        (3, ["4", "5"], 8, [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "5", "4")]),
    ],
)
def test_slots(parallel: Any, gpus: list[str], cores: int, expected: list[dict[str, str]]) -> None:
    assert slots(parallel, gpus, cores) == expected


@pytest.mark.parametrize(
    ("count", "setting", "expected"),
    [(2, None, ["0", "1"]), (2, "1", ["1"]), (2, "-1", []), (2, "", []), (0, "0", []), (8, "GPU-a, 3", ["GPU-a", "3"])],
)
def test_visible_gpus(count: int, setting: str | None, expected: list[str]) -> None:
    assert visible(count, setting) == expected


# ---- the study


def points(study: Study, count: int) -> list[Trial]:
    return [trial for trial in (study.next() for _ in range(count)) if trial is not None]


SEARCHES = [
    sweep(parameters={"learning_rate": [1e-4, 5e-4], "template": ["甲", "乙"]}, seeds=2),
    sweep(method="random", parameters={"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}, trials=4, seeds=2),
    sweep(
        method="tpe",
        parameters={"rank": {"low": 4, "high": 64}, "r": {"low": 0.0, "high": 1.0, "step": 0.25}},
        trials=4,
    ),
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.method)
def test_a_study_cut_anywhere_goes_on_with_the_same_points(search: Sweep, tmp_path: Path) -> None:
    study = Study(tmp_path / "whole.jsonl", search, minimise=False)
    first = points(study, 3)
    study.tell(first[0], {"status": "completed", "value": {"value": 50.0}})
    study.tell(first[2], {"status": "failed", "value": None})
    whole = (tmp_path / "whole.jsonl").read_bytes()
    beginning = len(whole.split(b"\n")[0]) + 1
    for cut in range(beginning, len(whole), 67):
        file = tmp_path / "cut.jsonl"
        file.write_bytes(whole[:cut])
        for _ in range(2):  # killed again at once
            again = Study(file, search, minimise=False)
        told = [trial.number for trial, _ in again.finished()]
        assert told in ([], [1])
        assert [trial.point for trial in points(again, 3 - len(told))] == [t.point for t in first[len(told) :]]


def test_a_study_asks_for_every_point_once_and_its_seeds_together(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.jsonl", SEARCHES[1], minimise=True)
    trials = points(study, 99)
    assert [trial.number for trial in trials] == list(range(1, study.total + 1))
    assert [trial.repetition for trial in trials] == [0, 1] * 4
    assert all(a.point == b.point for a, b in zip(trials[::2], trials[1::2], strict=True))
    assert len({trial.point["learning_rate"] for trial in trials}) == 4


def test_more_trials_go_on_with_the_same_study(tmp_path: Path) -> None:
    search = sweep(method="tpe", parameters={"r": {"low": 0.0, "high": 1.0}}, trials=2)
    study = Study(tmp_path / "study.jsonl", search, minimise=False)
    before = points(study, 9)
    for trial in before:
        study.tell(trial, {"status": "completed", "value": {"value": trial.point["r"]}})
    more = Study(tmp_path / "study.jsonl", search.model_copy(update={"trials": 3}), minimise=False)
    assert [trial.point for trial, _ in more.finished()] == [trial.point for trial in before]
    assert [trial.number for trial in points(more, 9)] == [3]


@pytest.mark.parametrize("method", ["asha", "median"])
@pytest.mark.parametrize("minimise", [True, False])
def test_the_trial_with_the_higher_loss_ends_early(method: str, minimise: bool, tmp_path: Path) -> None:
    search = sweep(parameters={"r": list(range(8))}, early_stopping={"method": method, "grace_steps": 2})
    study = Study(tmp_path / "study.jsonl", search, minimise)
    for trial in points(study, 7):
        for step in (1, 2, 4, 8):
            study.should_end(trial, step, 1.0 / step)
        study.tell(trial, {"status": "completed", "value": {"value": 1.0}})
    worse = points(study, 1)[0]
    assert not study.should_end(worse, 1, 9.0)  # within the grace
    assert study.should_end(worse, 2, 9.0)


# ---- ranking


def entry(number: int, rate: float, value: float, status: str = "completed") -> dict[str, Any]:
    figure = {"value": value, "low": value - 5, "high": value + 5} if status == "completed" else None
    return {"number": number, "run": f"run-{number}", "parameters": {"rate": rate}, "status": status, "value": figure}


def answers(folder: Path, number: int, right: range, rows: int = 100) -> None:
    made = [Row(str(n), "", "体育", "体育" if n in right else "财经") for n in range(rows)]
    write_rows(folder / f"run-{number}" / "evaluation" / "tuned.jsonl", made)


def test_equal_values_are_ordered_by_loss_and_then_by_cost() -> None:
    known = [(0.4, 9.0), (0.3, 20.0), (0.3, 10.0), (None, None)]
    trials = [entry(n, n / 10, 80.0) | {"loss": loss, "cost": cost} for n, (loss, cost) in enumerate(known, 1)]
    better = entry(5, 0.5, 81.0) | {"loss": 0.9, "cost": 99.0}
    assert [group.trials[0]["number"] for group in rank([*trials, better], "accuracy")] == [5, 3, 2, 1, 4]


def test_nothing_is_the_best_of_models_that_learnt_nothing(tmp_path: Path) -> None:
    trials = [entry(n, n / 10, 80.0 - n) | {"learnt": False} for n in (1, 2)]
    for number in (1, 2):
        answers(tmp_path, number, range(80 - number))
    ranked = ranking(rank(trials, "accuracy"), tmp_path, "accuracy", Evaluate())
    assert [is_best(place) for place in ranked] == [False, False]
    page = {"ranking": ranked, "trials": trials, "metric": "accuracy", "parameters": {"rate": []}}
    (said,) = conclusions(page)
    assert said.startswith("none is the best: ")
    write_json(tmp_path / "s-sweep-1/sweep.json", page)
    with pytest.raises(InputError, match="learnt anything"):
        best_trial(tmp_path / "s-sweep-1")


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (["✓ 1/2", "learning_rate=0.0005", "accuracy 91.0 (85.0–95.0)", "80.1 s"], None),
        (["✓ 1/2", "learning_rate=0.0005 " * 9, "accuracy 91.0 (85.0–95.0)", "80.1 s"], None),
        (["✓ 1/2", "标签=" + "体育" * 30, "accuracy 91.0", "80.1 s"], None),
        (["✗ 1/2", "learning_rate=0.5", "failed: " + "long " * 50, "0.1 s"], None),
        (["… 1/2", "温度=0.5", "", "train 4 s"], "… 1/2  温度=0.5  train 4 s"),
    ],
)
def test_a_line_of_a_trial_fits_80_columns(parts: list[str], line: str | None) -> None:
    made = fitted(parts, 80)
    assert cell_len(made) <= 80 and made.startswith(f"{parts[0]}  {parts[1][:8]}")
    assert line in (None, made)


@pytest.mark.parametrize(
    ("train", "rates", "doubted"),
    [
        ({}, None, []),
        ({"learning_rate": 2e-4}, [1e-4, 1e-3], []),
        ({"learning_rate": 0.5}, None, ["train.learning_rate: 0.5 is far above"]),
        ({}, [1e-4, 0.5], ["sweep.parameters.learning_rate: 0.5 is far above", "0.5 is 5,000 times 0.0001"]),
        ({}, {"low": 1e-9, "high": 1e-4, "log": True}, ["1e-09 is far below", "0.0001 is 100,000 times 1e-09"]),
    ],
)
def test_rates_that_are_hardly_meant_are_warned_of(train: dict[str, Any], rates: Any, doubted: list[str]) -> None:
    sweep = {"sweep": {"method": "random", "parameters": {"learning_rate": rates}}} if rates else {}
    said = list(doubts(Spec.model_validate({"name": "x", "data": {"train": "x"}, "train": train, **sweep})))
    assert len(said) == len(doubted) and all(words in text for words, text in zip(doubted, said, strict=True))


def test_a_ranking_says_which_points_cannot_be_told_from_the_best(tmp_path: Path) -> None:
    trials = [entry(1, 0.1, 40.0), entry(2, 0.2, 80.0), entry(3, 0.3, 79.0), entry(4, 0.4, 0.0, "failed")]
    for number, right in ((1, range(40)), (2, range(80)), (3, range(79))):
        answers(tmp_path, number, right)
    ranked = ranking(rank(trials, "accuracy"), tmp_path, "accuracy", Evaluate())
    assert [(place["best_trial"], place["tied"]) for place in ranked] == [(2, True), (3, True), (1, False)]
    assert "no significant difference between trial 3 and trial 2" in ranked[1]["sentence"]


def test_repetitions_are_averaged_row_by_row(tmp_path: Path) -> None:
    trials = [entry(1, 0.1, 80.0), entry(2, 0.1, 84.0), entry(3, 0.2, 40.0), entry(4, 0.2, 44.0)]
    for number, right in ((1, range(80)), (2, range(84)), (3, range(40)), (4, range(44))):
        answers(tmp_path, number, right)
    best, other = ranking(rank(trials, "accuracy"), tmp_path, "accuracy", Evaluate())
    assert (best["trials"], best["best_trial"], best["value"]["value"]) == ([2, 1], 2, 82.0)
    assert best["spread"] == pytest.approx(8**0.5)
    assert other["tied"] is False and "-40.0" in other["sentence"]


def test_a_loss_is_ranked_upwards_and_nobody_says_what_is_tied(tmp_path: Path) -> None:
    ranked = ranking(rank([entry(1, 0.1, 2.0), entry(2, 0.2, 1.0)], "eval_loss"), tmp_path, "eval_loss", Evaluate())
    assert [(place["best_trial"], place["tied"]) for place in ranked] == [(2, True), (1, None)]


def test_the_same_run_counts_once() -> None:
    twice = [entry(1, 0.1, 80.0), {**entry(2, 0.1, 80.0), "run": "run-1"}]
    assert [len(group.trials) for group in rank(twice, "accuracy")] == [1]


# ---- a spec's text

TEXT = """\
# 新闻
name: news  # the name
data:
  train: a.json
  eval: b.json

# how it learns
train:
  learning_rate: 1.0e-3  # careful
sweep: {parameters: {learning_rate: [1.0e-3]}}
"""


def test_editing_keeps_comments_and_order() -> None:
    changed = edited(
        TEXT, {"train.learning_rate": 0.5, "data.max_samples": 48, "evaluate.labels": ["体育", "财经"]}, ("sweep",)
    )
    assert (
        changed
        == """\
# 新闻
name: news  # the name
data:
  train: a.json
  eval: b.json
  max_samples: 48

# how it learns
train:
  learning_rate: 0.5     # careful
evaluate:
  labels: [体育, 财经]
"""
    )
    assert "eval:" not in edited(TEXT, {"data.eval": None})
