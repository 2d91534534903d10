"""What a classification reaches without training: what the base model is told, what is measured, what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.evaluation.untrained import UNTRAINED, gain
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_json
from orchestrator.report.card import baseline
from orchestrator.report.summary import comparison, outcome
from orchestrator.report.table import artifact_table
from orchestrator.runs.results import summaries
from orchestrator.stages.baselines import Baselines
from orchestrator.stages.predict import generated_by
from orchestrator.stages.prompted import ROOM, Prompted, system_text
from orchestrator.stages.score import Score

TRAIN = [("Cup final", "Sports"), ("Goal!", "Sports"), ("Rates rise", "Business"), ("Oil falls", "Business"),
         ("Late goal", "Sports")]  # fmt: skip
LABELS = ("Business", "Science", "Sports")


def conversation(question: str, label: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": label}], **more}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with rows, the answers of base, prompted base and tuned model, and the scores of two."""
    monkeypatch.chdir(tmp_path)
    held_out = [(f"headline {number}", LABELS[number % 3]) for number in range(30)]
    write_json(Path(layout.TRAIN_ROWS), [conversation(*row) for row in TRAIN])
    write_json(Path(layout.EVAL_ROWS), [conversation(*row, system="Be brief.") for row in held_out])
    prompts = [Row(str(n), question, label, "") for n, (question, label) in enumerate(held_out, 1)]
    write_rows(Path(layout.PROMPTS), prompts)
    right = {"base": 0, "base-prompted": 12, "tuned": 30}
    for artifact, so_many in right.items():
        lines = [{"predict": row.label if n < so_many else "I like news."} for n, row in enumerate(prompts)]
        made = Path(layout.generated(artifact))
        made.mkdir(parents=True)
        (made / "generated_predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
        write_json(made / "predict_results.json", {})
    sources = {artifact: generated_by(artifact) for artifact in ("base", "tuned")}
    Score(task="classification", labels=None, artifacts=sources, summary=layout.summary("score")).run()
    return tmp_path


def measured(folder: Path) -> dict[str, Any]:
    Prompted(shots=0).run()
    wanted = Baselines(layout.predictions("tuned"), layout.summary("baselines"), prompted=generated_by("base-prompted"))
    wanted.run()
    return summaries(folder)


def test_the_labels_are_told_beside_the_rows_own_system_text(folder: Path) -> None:
    Prompted(shots=2).run()
    told = Path(layout.TOLD).read_text()
    assert told == (
        "Answer with one of these labels and nothing else: Sports, Business, Science\n\n"
        "Examples:\nCup final\n→ Sports\n\nRates rise\n→ Business"
    )
    rows = read_json(Path(layout.PROMPTED_ROWS))
    assert {row["system"] for row in rows} == {f"Be brief.\n\n{told}"}
    assert [row["conversations"] for row in rows] == [row["conversations"] for row in read_json(Path(layout.EVAL_ROWS))]


def test_chinese_rows_are_told_in_chinese() -> None:
    assert system_text(["体育", "财经"], []) == "请只回答下列标签之一，不要回答别的内容：体育、财经"
    assert system_text(["sports", "money"], [("球队夺冠", "sports")]).endswith("例子：\n球队夺冠\n→ sports")


@pytest.mark.parametrize("label", ["label {}", "标签 {}"])
def test_what_finds_no_room_is_left_out(label: str) -> None:
    labels = [label.format(number) for number in range(1000)]
    text = system_text(labels, [("question", labels[0])] * 100)
    assert ROOM - 40 < len(text.encode()) <= ROOM
    assert labels[0] in text and labels[-1] not in text
    assert len(system_text(["a", "b"], [("question " * 20, "a")] * 100).encode()) <= ROOM


def test_the_gain_is_over_the_best_baseline(folder: Path) -> None:
    summary = measured(folder)
    assert list(summary["metrics"]) == [*UNTRAINED, "tuned"]
    accuracies = [round(of["accuracy"]["value"]) for of in summary["metrics"].values()]
    assert accuracies == [33, 0, 40, 100]
    best = gain(summary)
    assert best is not None and best is comparison(summary, "tuned")
    assert (best["b"], best["verdict"], best["difference"]["value"]) == ("base-prompted", "better", pytest.approx(60))
    assert baseline(summary["metrics"], "accuracy") == (
        "base model, told labels",
        summary["metrics"]["base-prompted"]["accuracy"],
    )
    assert summary["baselines"]["majority"] == "Sports"
    sentence, tone = outcome({"status": "completed", "stages": {}}, summary)
    assert "+60.0 points over the best baseline, the base model that is told the labels (40.0)" in sentence
    assert tone == "good"


def test_the_table_has_a_row_for_each(folder: Path) -> None:
    console = Console(width=80, record=True)
    artifact_table(measured(folder), console)
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [*UNTRAINED, "tuned"]
    assert any("gain over the best baseline, the base model that is told the labels (40.0)" in line for line in lines)


def test_a_run_without_them_says_what_it_said(folder: Path) -> None:
    summary = summaries(folder)
    assert list(summary["metrics"]) == ["base", "tuned"] and gain(summary) is None
    assert "better than the base model's 0.0" in outcome({"status": "completed", "stages": {}}, summary)[0]


def test_a_training_that_the_labels_alone_would_beat_is_no_gain(folder: Path) -> None:
    write_rows(Path(layout.predictions("tuned")), [
        Row(str(n), "", LABELS[(n - 1) % 3], "Sports") for n in range(1, 31)
    ])  # fmt: skip
    best = gain(measured(folder))
    assert best is not None and best["b"] == "base-prompted" and best["verdict"] != "better"
