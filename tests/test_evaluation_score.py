"""The gate, the recommendation, the table, and the worker that ties them together."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from orchestrator.evaluation import summary as summaries
from orchestrator.evaluation.compare import Basis, Comparison, compare, paired_scores
from orchestrator.evaluation.gate import Failure, judge, judge_divergence, judge_parity, judge_perplexity, with_causes
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.measure import Measurement
from orchestrator.evaluation.noninferiority import loss
from orchestrator.evaluation.recommend import Candidate, recommend
from orchestrator.evaluation.rows import Row, read_records, read_rows, write_records, write_rows
from orchestrator.evaluation.scores import Evidence
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json, write_json
from orchestrator.report.table import artifact_table
from orchestrator.stages import score

LABELS = ("国际", "体育")


def measured(accuracy: float, metric: str = "accuracy") -> Measurement:
    return Measurement(100, {metric: Interval(accuracy, accuracy, accuracy)})


def agrees(value: float) -> Interval:
    return Interval(value, value, value)


def rows_with(right: int, n: int = 100) -> list[Row]:
    """The first `right` rows of n are answered rightly."""
    labels = [LABELS[i % 2] for i in range(n)]
    return [
        Row(str(i), f"新闻分类：第 {i} 条", label, label if i < right else LABELS[1 - i % 2])
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("accuracy", "agreement", "missed"),
    [
        (80, 100, []),
        (77, 90, []),  # both exactly at the limit
        (76.9, 90, ["accuracy_drop"]),
        (80, 89.9, ["agreement"]),
        (10, 5, ["agreement", "accuracy_drop"]),
        (90, 95, []),
    ],
)
def test_the_gate(accuracy: float, agreement: float, missed: list[str]) -> None:
    failures = judge(
        {"tuned": measured(80), "gguf-q4_k_m": measured(accuracy)},
        {"gguf-q4_k_m": agrees(agreement)},
        {"min_agreement": 0.9, "max_accuracy_drop": 0.03},
    )
    assert [failure.what for failure in failures] == missed


def test_the_gate_says_what_it_measured_and_what_it_asked_for() -> None:
    measurements = {"tuned": measured(80, "rougeL"), "gguf-q2_k": measured(60, "rougeL")}
    agreement, drop = judge(measurements, {"gguf-q2_k": agrees(50)}, {"min_agreement": 0.9, "max_accuracy_drop": 0.03})
    assert agreement == Failure(
        "gguf-q2_k",
        "agreement",
        "gguf-q2_k answers 50.0 % of the rows as tuned does; the gate asks for 90.0 %",
        0.5,
        0.9,
    )
    assert drop.sentence == (
        "gguf-q2_k loses 20.0 points of rougeL against tuned (60.0 after 80.0); the gate allows 3.0"
    )
    assert (drop.what, drop.value, drop.limit) == ("rougeL_drop", 0.2, 0.03)


def test_an_empty_gate_lets_everything_pass() -> None:
    assert judge({"tuned": measured(80), "gguf-q2_k": measured(0)}, {"gguf-q2_k": agrees(0)}, {}) == []


def report(compared: int = 9, equal: int = 9, rows: int = 9, repeating: int = 0) -> dict[str, Any]:
    difference = {"id": "3", "at": 5, "same_text": True, "doubled_first": False} if equal < compared else None
    counts = {"rows": rows, "compared": compared, "equal_prompts": equal, "repeating": repeating}
    return counts | {"first_difference": difference}


def missed(*names: str) -> list[Failure]:
    return [Failure(name, "agreement", f"{name} differs") for name in names]


SEEN = "for the prompts of all 9 rows were those of training"


@pytest.mark.parametrize(
    ("failing", "asked", "sentences"),
    [
        (["q4_k_m"], ["f16", "q4_k_m"], [f"q4_k_m differs; likely cause: quantisation, {SEEN}"]),
        (["f16"], ["f16", "q4_k_m"], [f"f16 differs; likely cause: conversion, {SEEN}"]),
        (
            ["f16", "q4_k_m"],  # what f16 has lost, no quantisation lost
            ["f16", "q4_k_m"],
            [f"f16 differs; likely cause: conversion, {SEEN}", f"q4_k_m differs; likely cause: conversion, {SEEN}"],
        ),
        (["q4_k_m"], ["q4_k_m"], [f"q4_k_m differs; likely cause: conversion or quantisation, {SEEN}"]),
        (["adapter"], ["f16", "adapter"], [f"adapter differs; likely cause: conversion, {SEEN}"]),
        (["q4_k_m"], [], ["q4_k_m differs"]),
    ],
)
def test_a_failure_names_its_likely_cause(failing: list[str], asked: list[str], sentences: list[str]) -> None:
    found = with_causes(missed(*failing), {name: report() for name in asked})
    assert [failure.sentence for failure in found] == sentences


@pytest.mark.parametrize("what", ["call_accuracy_drop", "rougeL_drop", "json_fields_drop"])
def test_whatever_metric_drops_has_a_cause(what: str) -> None:
    (found,) = with_causes([Failure("q4_k_m", what, "q4_k_m loses")], {"f16": report(), "q4_k_m": report()})
    assert found.sentence == f"q4_k_m loses; likely cause: quantisation, {SEEN}"


@pytest.mark.parametrize(
    "counts", [report(compared=0, equal=0), report(compared=5, equal=5), report(equal=8), report(0, 0, 0)]
)
def test_no_cause_is_named_where_not_every_prompt_was_training_s(counts: dict[str, Any]) -> None:
    assert with_causes(missed("q4_k_m"), {"q4_k_m": counts}) == missed("q4_k_m")


def test_what_was_not_compared_is_not_proven() -> None:
    (failure,) = judge_parity("f16", report(compared=6, equal=6), 100.0, {})
    assert (failure.what, failure.value, failure.limit) == ("uncompared", pytest.approx(1 / 3), 0.0)
    assert failure.sentence == (
        "f16: the prompts of 3 of 9 rows were not compared with training's (conversations with tools are not), "
        "so nothing is proven of them; the gate allows 0.0 %"
    )
    assert judge_parity("f16", report(compared=6, equal=6), 100.0, {"max_uncompared": 0.34}) == []
    assert judge_parity("f16", report(), 100.0, {}) == []


def test_prompts_and_answers_are_counted_in_what_is_said() -> None:
    different, uncompared = judge_parity("f16", report(compared=6, equal=4), 100.0, {})
    assert different.sentence == (
        "f16: the prompts of 2 of 6 compared rows differ from training; "
        "likely cause: tokenizer, row 3 differs from token 5 on"
    )
    assert uncompared.what == "uncompared"
    (repeats,) = with_causes(judge_parity("q2_k", report(repeating=8), 10.0, {}), {"q2_k": report(), "f16": report()})
    assert repeats.sentence == f"q2_k: 8 of 9 answers only repeat themselves; likely cause: quantisation, {SEEN}"
    assert judge_parity("q2_k", report(repeating=8), 60.0, {}) == []  # as the tuned model does


def test_a_perplexity_that_is_no_number_passes_no_gate() -> None:
    gate, nan = {"max_perplexity_rise": 0.1}, float("nan")
    (lost,) = judge_perplexity({"gguf-f16": nan, "gguf-q8_0": 9.0, "tuned": 9.0}, gate)
    assert (lost.artifact, lost.what) == ("gguf-f16", "perplexity")
    found = judge_perplexity({"gguf-f16": 9.0, "tuned": float("inf")}, gate)
    assert [(failure.artifact, failure.what) for failure in found] == [("tuned", "perplexity")]


def candidates(right: dict[str, int], n: int = 100, **nats: float) -> tuple[dict[str, Comparison], list[Candidate]]:
    """GGUFs that answer so many of n rows rightly, of 80 % that the tuned model does, each half as large."""
    tuned = rows_with(8 * n // 10, n)
    comparisons, found = {}, []
    for number, (kind, count) in enumerate(right.items()):
        rows, name = rows_with(count, n), f"gguf-{kind}"
        comparisons[name] = compare(rows, tuned, Basis("classification", (name, "tuned")))
        _, before, after = paired_scores(rows, tuned, Basis("classification"))
        size = 272_000_000 // 2**number
        found.append(Candidate(name, size, loss(after - before, 3.0), nats.get(kind)))
    return comparisons, found


def recommended(*about: Any) -> str | None:
    found = recommend(*about)
    return found and found.artifact


def test_the_smallest_file_that_is_shown_to_keep_the_limit_is_recommended() -> None:
    comparisons, files = candidates({"f16": 80, "q8_0": 80, "q4_k_m": 78, "q2_k": 50})
    found = recommend(comparisons, files)
    assert found is not None
    assert (found.artifact, found.bytes) == ("gguf-q8_0", 136_000_000)
    assert found.sentence == (
        "gguf-q8_0 (136.0 MB) is shown to lose at most 3.0 points (95 % sure: 2.96); gguf-q4_k_m may lose 6.2, "
        "about 840 rows would tell (accuracy 80.0 against 80.0 of tuned, 100 rows)"
    )
    assert recommended(comparisons, files, ["gguf-q8_0"]) == "gguf-f16"
    assert recommended(comparisons, files, [one.artifact for one in files]) is None
    assert recommend(comparisons, []) is None


def test_files_are_looked_at_in_the_order_they_were_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, files = candidates(dict.fromkeys(map(str, range(9)), 80))
    losses = {one.artifact: one.loss for one in files}
    found = cast("Any", SimpleNamespace(failures=[], losses=losses, comparisons={}))
    monkeypatch.setattr(summaries, "recommend", lambda comparisons, candidates, refused: candidates)
    listed: Any = summaries.recommended(found, Evidence(rows={}, sizes=dict.fromkeys(losses, 1)), "tuned")
    assert [one.artifact for one in listed] == list(losses)


def test_more_rows_show_more() -> None:
    assert recommended(*candidates({"f16": 800, "q4_k_m": 790, "q2_k": 500}, 1000)) == "gguf-q4_k_m"


def test_where_no_file_is_shown_the_nearest_is_named_with_the_rows_that_would_do() -> None:
    found = recommend(*candidates({"f16": 40, "q4_k_m": 40}, 50, f16=0.0001, q4_k_m=0.01))
    assert found is not None and found.artifact == "gguf-f16"
    assert "no file is shown to lose at most 3.0 points, about 99 rows would tell" in found.sentence
    assert "(272.0 MB) is the nearest to the model (divergence 0.0001) and may lose 5.8" in found.sentence
    assert recommended(*candidates({"f16": 40, "q4_k_m": 40}, 50)) == "gguf-f16"  # the largest, nothing else known
    assert recommended(*candidates({"f16": 20}, 50)) is None  # it is worse


def test_an_equal_file_that_is_a_little_larger_beats_a_worse_one() -> None:
    comparisons, files = candidates({"f16": 80, "q5_k_m": 80, "q4_k_m": 80}, f16=0.0, q5_k_m=0.006, q4_k_m=0.011)
    assert recommended(comparisons, files) == "gguf-q4_k_m"
    close = [replace(one, bytes=size) for one, size in zip(files, (270_000_000, 112_000_000, 105_000_000), strict=True)]
    found = recommend(comparisons, close)
    assert found is not None and found.artifact == "gguf-q5_k_m"
    assert "and is nearer to the model than gguf-q4_k_m, which is little smaller" in found.sentence


def test_a_file_below_one_that_is_not_shown_to_keep_the_limit_is_not_looked_at() -> None:
    comparisons, files = candidates({"f16": 80, "q8_0": 79, "q4_k_m": 80})
    assert recommended(comparisons, files) == "gguf-f16"
    comparisons, files = candidates({"f16": 79, "q8_0": 80, "q4_k_m": 80})
    assert recommended(comparisons, files) == "gguf-q4_k_m"


def test_the_gate_limits_the_divergence() -> None:
    rows = {"gguf-q2_k": [{"id": str(i), "divergence": i / 100, "probability": 0.5, "before": 0.6} for i in range(9)]}
    assert judge_divergence(rows, None) == judge_divergence(rows, 0.04) == []
    (failure,) = judge_divergence(rows, 0.03)
    assert failure.sentence == ("gguf-q2_k diverges by 0.0400 nats a token, most on rows 8, 7, 6; the gate allows 0.03")
    rows["gguf-q2_k"][4]["divergence"] = None
    (broken,) = judge_divergence(rows, None)
    assert broken.sentence == "gguf-q2_k gives no probabilities on rows 4, 8, 7: it computes nothing there"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with answers of base and tuned from LLaMA-Factory and of two GGUFs from llama.cpp."""
    monkeypatch.chdir(tmp_path)
    tuned = rows_with(80)
    write_records(Path("data/prompts.jsonl"), [{"id": r.id, "prompt": r.prompt, "label": r.label} for r in tuned])
    for artifact, rows in (("base", rows_with(10)), ("tuned", tuned)):
        folder = Path(f"evaluation/generated-{artifact}")
        generated = [{"prompt": f"<s>{r.prompt}", "predict": r.prediction, "label": r.label + "\n"} for r in rows]
        write_records(folder / "generated_predictions.jsonl", generated)
        results = {"predict_rouge-1": 80.0, "predict_bleu-4": 79.0, "predict_runtime": 3.2}
        write_json(folder / "predict_results.json", results)
    write_rows(Path("evaluation/gguf-f16.jsonl"), tuned)
    write_rows(Path("evaluation/gguf-q4_k_m.jsonl"), rows_with(79))
    return tmp_path


def generated(artifact: str) -> dict[str, str]:
    folder = f"evaluation/generated-{artifact}"
    return {
        "generated": f"{folder}/generated_predictions.jsonl",
        "rows": "data/prompts.jsonl",
        "rouge": f"{folder}/predict_results.json",
    }


def configure(**changes: Any) -> score.Score:
    config: dict[str, Any] = {
        "task": "classification",
        "labels": None,
        "seed": 0,
        "artifacts": {"base": generated("base"), "tuned": generated("tuned")},
        "reference": "tuned",
        "baseline": "base",
        "out_dir": "evaluation",
        "summary": "evaluation/summary-score.json",
    }
    return score.Score(**(config | changes))


def judged(**changes: Any) -> score.Score:
    names = ("base", "tuned", "gguf-f16", "gguf-q4_k_m")
    files = {"gguf-f16": "export/news-f16.gguf", "gguf-q4_k_m": "export/news-q4_k_m.gguf"}
    for size, file in zip((27_000_000, 10_500_000), files.values(), strict=True):
        Path(file).parent.mkdir(exist_ok=True)
        with Path(file).open("wb") as hole:
            hole.truncate(size)
    settings = {
        "artifacts": {name: f"evaluation/{name}.jsonl" for name in names},
        "summary": "evaluation/summary-judge.json",
        "gate": {"min_agreement": 0.9, "max_accuracy_drop": 0.03},
        "files": files,
    }
    return configure(**(settings | changes))


def summary(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(f"evaluation/summary-{stage}.json"))
    return found


def test_predictions_of_llama_factory_are_scored(run: Path) -> None:
    configure().run()
    assert read_rows(Path("evaluation/tuned.jsonl")) == rows_with(80)
    found = summary("score")
    assert found["metrics"]["tuned"]["n"] == 100
    assert found["metrics"]["tuned"]["accuracy"]["value"] == 80
    assert found["metrics"]["base"]["rouge1"]["value"] == 10
    assert found["predict_rouge"]["tuned"] == {"predict_rouge-1": 80.0, "predict_bleu-4": 79.0}
    (comparison,) = found["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("tuned", "base", "better")
    assert (found["failures"], found["recommendation"]) == ([], None)
    assert len(read_records(Path("evaluation/base.errors.jsonl"))) == 90
    assert not Path("evaluation/base.disagreements.jsonl").exists()


def test_a_run_without_a_baseline_is_scored(run: Path) -> None:
    configure(artifacts={"tuned": generated("tuned")}).run()
    assert summary("score")["comparisons"] == []


def test_ggufs_are_judged_against_the_tuned_model(run: Path) -> None:
    configure().run()
    judged().run()
    found = summary("judge")
    assert found["metrics"]["gguf-q4_k_m"]["agreement_with_tuned"]["value"] == 99
    assert "agreement_with_tuned" not in found["metrics"]["tuned"]
    assert [(c["a"], c["b"]) for c in found["comparisons"]] == [
        ("tuned", "base"), ("gguf-f16", "tuned"), ("gguf-q4_k_m", "tuned"),
    ]  # fmt: skip
    assert [c["verdict"] for c in found["comparisons"]] == ["better", "as good", "cannot tell"]
    assert found["recommendation"]["artifact"] == "gguf-f16"
    assert "predict_rouge" not in found
    ((_, row),) = read_records(Path("evaluation/gguf-q4_k_m.disagreements.jsonl"))
    assert (row["id"], row["gguf-q4_k_m"], row["tuned"]) == ("79", "国际", "体育")
    assert Path("evaluation/gguf-f16.disagreements.jsonl").read_text() == ""


def test_the_gate_and_parity_are_written_down(run: Path) -> None:
    configure().run()
    write_rows(Path("evaluation/gguf-q4_k_m.jsonl"), rows_with(40))
    sound = {"rows": 100, "compared": 100, "equal_prompts": 100, "repeating": 0, "first_difference": None}
    write_json(Path("sound.json"), sound)
    difference = {"id": "3", "at": 5, "same_text": True, "doubled_first": False}
    write_json(Path("broken.json"), sound | {"equal_prompts": 90, "first_difference": difference})
    judged(parity={"gguf-q4_k_m": "sound.json", "gguf-f16": "broken.json"}).run()
    found = summary("judge")
    assert [(f["artifact"], f["what"]) for f in found["failures"]] == [
        ("gguf-f16", "parity"), ("gguf-q4_k_m", "agreement"), ("gguf-q4_k_m", "accuracy_drop"),
    ]  # fmt: skip
    assert "likely cause: quantisation" in found["failures"][1]["sentence"]
    assert found["recommendation"] is None


def test_dropped_rows_are_noticed(run: Path) -> None:
    file = Path("evaluation/generated-base/generated_predictions.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(StageError, match="base was asked 100 rows and answered 99"):
        configure().run()


def test_silence_on_both_sides_passes_nothing(run: Path) -> None:
    silent = [Row(row.id, row.prompt, row.label, "") for row in rows_with(80)]
    write_rows(Path("evaluation/tuned.jsonl"), silent)
    write_rows(Path("evaluation/gguf-f16.jsonl"), silent)
    names = ("tuned", "gguf-f16")
    gate = {"min_agreement": 0.0, "max_accuracy_drop": 1.0}
    judged(artifacts={name: f"evaluation/{name}.jsonl" for name in names}, gate=gate).run()
    found = summary("judge")
    assert [failure["sentence"] for failure in found["failures"]] == [
        "tuned: all 100 answers are empty", "gguf-f16: all 100 answers are empty",
    ]  # fmt: skip
    assert found["recommendation"] is None
    assert "agreement_with_tuned" not in found["metrics"]["gguf-f16"]
    lines = printed(found)
    assert words(lines[0]) == "artifact n accuracy (95 %) macro F1 empty agrees size verdict"
    assert "100.0 27.0 MB fails gate" in words(lines[2])
    assert max(map(len, lines)) <= 80


def test_one_answer_to_everything_passes_nothing(run: Path) -> None:
    same = [Row(row.id, row.prompt, row.label, "体育") for row in rows_with(80)]
    write_rows(Path("evaluation/gguf-f16.jsonl"), same)
    configure().run()
    judged(gate={"min_agreement": 0.0, "max_accuracy_drop": 1.0}).run()
    found = summary("judge")
    assert [failure["artifact"] for failure in found["failures"]] == ["gguf-f16"]
    assert found["failures"][0]["sentence"] == (
        "gguf-f16: it answers '体育' to all 100 rows, which expect 2 different answers"
    )
    assert found["recommendation"]["artifact"] == "gguf-q4_k_m"


def test_rows_that_were_not_compared_are_said_below_the_table(run: Path) -> None:
    configure().run()
    write_json(Path("some.json"), report(compared=60, equal=60, rows=100))
    judged(parity={"gguf-f16": "some.json"}).run()
    found = summary("judge")
    assert [(failure["artifact"], failure["what"]) for failure in found["failures"]] == [("gguf-f16", "uncompared")]
    text = words(" ".join(printed(found)))
    assert "! gguf-f16: the prompts of 40 of 100 rows were not compared with training's" in text
    judged(parity={"gguf-f16": "some.json"}, gate={"max_uncompared": 0.4}).run()
    allowed = summary("judge")
    assert (allowed["failures"], allowed["notes"]) == ([], found["notes"])


def printed(summary: dict[str, Any]) -> list[str]:
    text = io.StringIO()
    artifact_table(summary, Console(file=text, width=80))
    return text.getvalue().splitlines()


def words(line: str) -> str:
    return " ".join(line.split())


def test_the_table_fits_80_columns(run: Path) -> None:
    configure().run()
    write_rows(Path("evaluation/gguf-f16.jsonl"), rows_with(70))
    judged().run()
    lines = printed(summary("judge"))
    assert words(lines[0]) == "artifact n accuracy (95 %) macro F1 ROUGE-1 agrees size verdict"
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["base", "100", "10.0"], ["tuned", "100", "80.0"], ["gguf-f16", "100", "70.0"], ["gguf-q4_k_m*", "100", "79.0"],
    ]  # fmt: skip
    assert lines[3].rstrip().endswith("90.0 27.0 MB fails gate")
    assert lines[4].rstrip().endswith("99.0 10.5 MB no sig. diff.")
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  * no file is shown to lose at most 3.0 points, about 220 rows") for line in lines)


def test_the_table_of_a_generation_task_shows_rouge_l() -> None:
    figures = {"n": 3, "rougeL": {"value": 50, "low": 40, "high": 60}, "rouge1": {"value": 55, "low": 1, "high": 99}}
    header, row = printed({"metrics": {"tuned": figures}})
    assert words(header) == "artifact n ROUGE-L (95 %) BLEU ROUGE-1 agrees size verdict"
    assert words(row) == "tuned 3 50.0 (40.0–60.0) 55.0"
