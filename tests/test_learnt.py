"""Did training teach anything, and what to try where it did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.evaluation import baselines
from orchestrator.evaluation.learnt import Seen, next_steps
from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError
from orchestrator.lib.files import read_json, write_json
from orchestrator.pipeline.workflow import require_gate
from orchestrator.report.console import show_run
from orchestrator.runs import store
from orchestrator.serving.artifacts import violations
from orchestrator.spec.sections import Evaluate
from orchestrator.stages import score
from tests.test_evaluation_score import rows_with

DOWN = (2.0, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3)
FLAT = (2.0, 2.0, 1.9, 2.0, 1.95, 1.9, 2.0, 1.95)
TAUGHT = ["体育"] * 3 + ["国际"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"losses": DOWN}, []),
        ({"losses": (8, 7, 6, 5, 4, 3, 2, 1)}, ["still falling"]),
        ({"losses": (2.0, 1.0, 3.0, 4.0)}, ["from 2.00 to 4.00: the rate is too high"]),
        ({"losses": (2.0, 0.5, 1.7, 1.8)}, ["the rate is too high"]),
        ({"losses": DOWN, "one_answer": True}, ["every answer is the same: the rate is too high"]),
        ({"losses": FLAT}, []),
        ({"losses": FLAT, "learnt": False}, ["hardly moved (2.00 to 1.95)", "No gain"]),
        ({"losses": (2.0, 0.5, 0.05, 0.01), "learnt": False}, ["known by heart", "No gain"]),
        ({"held_out": (2.0, 1.0, 1.2)}, ["rose again"]),
        ({"unseen_labels": ("国际", "财经")}, ["No training row has '国际', '财经'"]),
        ({"answers": 100, "cut_off": 6}, ["6 of 100 answers end before they are complete: raise evaluate.max_new"]),
        ({"answers": 100, "cut_off": 5}, []),
        ({"learnt": False}, ["No gain over the best baseline"]),
    ],
)
def test_what_is_seen_decides_what_to_try(facts: dict[str, Any], said: list[str]) -> None:
    given = list(next_steps(Seen(**facts)))
    assert len(given) == len(said)
    assert all(words in sentence for words, sentence in zip(said, given, strict=True))


def found(right: int, baseline: int, n: int = 100) -> list[baselines.Baseline]:
    return [baselines.against(rows_with(right, n), rows_with(baseline, n), "base", "base", "classification")]


@pytest.mark.parametrize(
    ("right", "baseline", "n", "fails", "open_"),
    [
        (80, 10, 100, 0, 0),
        (10, 10, 100, 1, 0),
        (12, 10, 100, 1, 0),
        (5, 20, 100, 1, 0),
        (8, 8, 12, 0, 1),  # four wrong rows: no model could be shown to be better
        (95, 95, 100, 0, 1),
        (12, 6, 12, 0, 0),
        (11, 6, 12, 1, 0),
    ],
)
def test_only_what_the_rows_could_show_is_asked(right: int, baseline: int, n: int, fails: int, open_: int) -> None:
    held = found(right, baseline, n)
    assert (len(baselines.not_better(held)), len(baselines.untellable(held))) == (fails, open_)


def test_the_most_frequent_training_label_is_the_other_baseline() -> None:
    label, same = baselines.majority_rows(rows_with(80), TAUGHT)
    assert (label, {row.prediction for row in same}) == ("体育", {"体育"})
    assert baselines.majority_rows([Row("1", "", "b", ""), Row("2", "", "a", ""), Row("3", "", "b", "")], [])[0] == "b"


def test_answers_that_end_within_their_label_or_their_thoughts_are_counted() -> None:
    answers = ["国际", "国", "", "<think>想", "国际新闻"]
    rows = [Row(str(n), "", "国际", answer) for n, answer in enumerate(answers)]
    assert baselines.seen_in(rows, ["体育"], "classification") == {"unseen_labels": ["国际"], "cut_off": 2}
    assert baselines.seen_in(rows, [], "classification")["unseen_labels"] == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose tuned model answers what the most frequent label does, half of the rows rightly."""
    run = store.create(tmp_path, "news", stages={"score": {"status": "completed"}, "judge": {"status": "completed"}})
    monkeypatch.chdir(run.folder)
    turns = [{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": label}]} for label in TAUGHT]
    write_json(Path(layout.TRAIN_ROWS), turns)
    write_rows(Path("evaluation/base.jsonl"), rows_with(0))
    write_rows(Path("evaluation/tuned.jsonl"), rows_with(52))
    write_rows(Path("evaluation/gguf-f16.jsonl"), rows_with(52))
    write_json(Path("train/trainer_log.jsonl"), {})
    return run.folder


def judged(**changes: Any) -> dict[str, Any]:
    Path("export").mkdir(exist_ok=True)
    Path("export/news-f16.gguf").write_bytes(b"GGUF")
    artifacts = {name: f"evaluation/{name}.jsonl" for name in ("base", "tuned", "gguf-f16")}
    files = {"gguf-f16": "export/news-f16.gguf"}
    summary = layout.summary("judge")
    changes = {"gate": {"min_agreement": 0.9, "max_accuracy_drop": 0.03}, **changes}
    score.Gate(**{"task": "classification", "artifacts": artifacts, "summary": summary, "files": files} | changes).run()
    found: dict[str, Any] = read_json(Path(summary))
    return found


def test_a_model_that_learnt_nothing_is_not_shipped(folder: Path, capsys: Any) -> None:
    summary = judged()
    (failure,) = summary["failures"]
    assert (failure["artifact"], failure["what"]) == ("tuned", "better_than")
    assert failure["sentence"].startswith("tuned is not better than always answering '体育'; no significant difference")
    assert summary["recommendation"] is None
    run = store.load(folder)
    assert violations(run, "f16") == [failure["sentence"]]
    Path("train/trainer_log.jsonl").write_text("".join(f'{{"current_steps": {n}, "loss": 2}}\n' for n in (1, 2)))
    show_run(run, Console(width=200))
    said = capsys.readouterr().out
    assert "to try: The loss hardly moved (2.00 to 2.00)" in said and "serve it" not in said
    wanted: Any = type("Plan", (), {"steps": [type("P", (), {"step": type("S", (), {"stage": "judge"})})]})
    with pytest.raises(GateError, match="not better than always answering") as refused:
        require_gate(run, wanted)
    assert "evaluate.better_than" in refused.value.hint


@pytest.mark.parametrize("chosen", [[], ["base"]])
def test_a_spec_may_ask_for_less(chosen: list[str], folder: Path) -> None:
    summary = judged(better_than=chosen)
    assert (summary["failures"], summary["recommendation"]["artifact"]) == ([], "gguf-f16")


def test_of_a_preference_nothing_of_the_kind_is_asked(folder: Path) -> None:
    pair = {"conversations": [], "chosen": {"from": "gpt", "value": "国际"}}
    write_json(Path(layout.TRAIN_ROWS), [pair])
    assert judged()["failures"] == []


def test_the_default_is_no_part_of_a_configuration() -> None:
    context: Any = type("C", (), {"spec": type("S", (), {"evaluate": Evaluate()})})
    assert "better_than" not in score._asked_for(context)
    context.spec.evaluate = Evaluate(better_than=())
    assert score._asked_for(context)["better_than"] == []
