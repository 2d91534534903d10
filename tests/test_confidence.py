"""A classifier's own probabilities: calibrated or not, and how many rows they are good for."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.evaluation.confidence import (
    answerable,
    calibrate,
    equal_width_error,
    expected_calibration_error,
    fitted_temperature,
    probabilities,
)
from orchestrator.evaluation.rows import Row, write_records
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines, write_json
from orchestrator.models.choices import log_likelihoods
from orchestrator.models.gguf import GgufModel
from orchestrator.models.reading import Reading, tree
from orchestrator.report.run_page import mistakes
from orchestrator.runs.results import summaries
from orchestrator.serving import confidence as served
from orchestrator.stages.ask import Ask
from orchestrator.stages.confidence import Confidence, by_doubt
from orchestrator.stages.labels import label_tokens, told_apart


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[Any, Any]:
    """Log-likelihoods of three labels, each right as often as it says, once divided by `temperature`."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 2, (n, 3))
    shares = probabilities(scores)
    truth = np.array([generator.choice(3, p=row) for row in shares])
    return scores * temperature, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_cures_the_error(temperature: float) -> None:
    likelihoods, truth = drawn(4000, temperature)
    assert fitted_temperature(likelihoods, truth) == pytest.approx(temperature, rel=0.1)
    found = calibrate(likelihoods[:400], truth[:400])
    assert found.scaled_ece.value < 2 * found.least_ece
    assert (found.ece.value > 2 * found.least_ece) == (temperature != 1)
    assert found.ece.low <= found.ece.value <= found.ece.high


@pytest.mark.parametrize(
    ("confidence", "right", "wanted"),
    [
        ([0.95, 0.95], [1, 1], 5.0),
        ([0.95, 0.95], [0, 1], 45.0),
        ([0.55, 0.95], [1, 1], 25.0),
        ([1.0, 1.0], [1, 1], 0.0),
    ],
)
def test_the_calibration_error(confidence: list[float], right: list[int], wanted: float) -> None:
    assert expected_calibration_error(np.array(confidence), np.array(right)) == pytest.approx(wanted)


def test_bins_hold_equally_many_rows() -> None:
    """The surest rows lie in one bin of equal width, where too sure and not sure enough even out."""
    confidence = np.concatenate([np.linspace(0.90, 0.92, 50), np.linspace(0.97, 0.99, 50)])
    right = np.array([1.0] * 50 + [0.88] * 50)
    assert equal_width_error(confidence, right) == pytest.approx(0.5)
    assert expected_calibration_error(confidence, right) > 7
    assert expected_calibration_error(confidence[::-1], right[::-1]) > 7


def test_rows_of_equal_confidence_count_alike() -> None:
    right = np.array([1.0] * 60 + [0.0] * 40)
    assert expected_calibration_error(np.full(100, 0.6), right) == pytest.approx(0)
    assert expected_calibration_error(np.full(100, 0.6), right[::-1]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("confidence", "right", "wanted"),
    [
        ([0.9, 0.8, 0.7], [1, 1, 0], (2 / 3, 0.8)),
        ([0.9, 0.8, 0.7], [0, 1, 1], (0.0, None)),
        ([0.9, 0.8, 0.8], [1, 1, 0], (1 / 3, 0.9)),  # equal confidences go together
        ([0.5] * 20, [1] * 19 + [0], (1.0, 0.5)),
    ],
)
def test_the_share_of_rows_that_can_be_answered(confidence: list[float], right: list[int], wanted: Any) -> None:
    assert answerable(np.array(confidence), np.array(right)) == pytest.approx(wanted)


def test_what_labels_begin_with_alike_is_one_node() -> None:
    nodes, paths = tree([[1, 2, 9], [1, 3, 9], [1, 9], [4, 9]])
    assert [(node.token, node.depth, node.answers, node.inner) for node in nodes] == [
        (1, 0, [0, 1, 2], True), (2, 1, [0], True), (9, 2, [0], False), (3, 1, [1], True), (9, 2, [1], False),
        (9, 1, [2], False), (4, 0, [3], True), (9, 1, [3], False),
    ]  # fmt: skip
    assert paths == [[0, 1, 2], [0, 3, 4], [0, 5], [6, 7]]


class Tokenizer:
    """Splits into characters, and writes a space before the first one where text stands alone."""

    def tokenize(self, text: str) -> list[int]:
        return [*([] if text.startswith("?") else [32]), *map(ord, text)]

    def detokenize(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def test_a_draft_comes_first_and_labels_beside_it() -> None:
    """The prompt is looked at once before its end; the labels share the first tokens of the draft, or none."""
    reading = Reading([7, 8, 9], [[1, 2, 0], [1, 2], [1, 3, 4], [5]], own=(-1,))
    assert [(entry.token, entry.position, list(entry.sequences), entry.wanted) for entry in reading.entries(1)] == [
        (8, 1, [0, 1, 2, 3], True), (9, 2, [0, 1, 2, 3], True),
        (1, 3, [0, 1, 2], True), (2, 4, [0, 1], True), (3, 4, [2], True),
    ]  # fmt: skip
    assert reading.followers([1, 2, 3]) == [[], [1, 5], [2, 3], [], [4]]
    logs: list[dict[int, float]] = [{}, {1: -1.0, 5: -2.0}, {2: -0.5, 3: -3.0}, {}, {4: -0.25}]
    assert reading.likelihoods([1, 2, 3], logs) == [-1.5, -4.25, -2.0]


def test_labels_are_taken_in_the_tokens_that_the_model_says() -> None:
    model: Any = Tokenizer()
    assert label_tokens(model, ["ab", "体"], "?", [[32, 97, 98]]) == [[32, 97, 98], [32, ord("体")]]
    assert label_tokens(model, ["ab", "体"], "?", [[97, 98]]) == [[97, 98], [ord("体")]]


def test_a_label_that_another_begins_with_has_its_end() -> None:
    assert told_apart([[1], [1, 2], [3]], [9]) == [[1, 9], [1, 2], [3]]


def test_the_least_certain_rows_come_first() -> None:
    rows = [Row("1", "?", "体育", "体育"), Row("2", "?", "国际", "体育")]
    found = by_doubt(rows, ["体育", "国际"], np.log([[0.9, 0.1], [0.6, 0.4]]), 1.0)
    assert [(row["id"], row["confidence"], row["right"]) for row in found] == [("2", 0.6, False), ("1", 0.9, True)]
    assert found[0]["probabilities"] == {"体育": 0.6, "国际": 0.4}


@pytest.fixture(scope="module")
def measured(shipped_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run whose two GGUFs were asked for the probabilities of their labels."""
    folder = tmp_path_factory.mktemp("confident") / shipped_run.id
    shutil.copytree(shipped_run.folder, folder)
    files = {
        "gguf-f16": ["export/tiny-f16.gguf"],
        "gguf-adapter": ["export/tiny-base.gguf", "export/tiny-adapter.gguf"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Confidence(files, None, 4).run()
    return folder


def test_a_gguf_is_sure_of_what_it_answers(measured: Path) -> None:
    rows = read_json_lines(measured / layout.confidence("gguf-f16"))
    assert all(row["confidence"] == max(row["probabilities"].values()) for row in rows)
    assert all(row["confidence"] == row["probabilities"][row["likeliest"]] for row in rows)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3) for row in rows)
    over_base = {row["id"]: row["likeliest"] for row in read_json_lines(measured / layout.confidence("gguf-adapter"))}
    assert over_base == {row["id"]: row["likeliest"] for row in rows}


@pytest.mark.parametrize("asked_before", [0, 5])
def test_what_was_read_while_asking_is_not_read_again(
    asked_before: int, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(measured, run)
    monkeypatch.chdir(run)
    stage, kept = Confidence({"gguf-f16": ["export/tiny-f16.gguf"]}, None, 4), Path(layout.likelihoods("gguf-f16"))
    alone, rows = read_json_lines(Path(layout.confidence("gguf-f16"))), len(read_json_lines(kept))
    write_json(Path(layout.stage_config("confidence")), asdict(stage))
    answered = Path(layout.answered("gguf-f16"))
    answered.write_text("".join(answered.read_text().splitlines(keepends=True)[:asked_before]))
    kept.write_text("")
    Ask(**read_json(Path("configs/ask-f16.json"))).run()
    assert len(read_json_lines(kept)) == rows - asked_before
    read: list[int] = []
    of_model = GgufModel.read

    def counted(self: Any, readings: Any, look: Any) -> Any:
        read.append(len(readings))
        return of_model(self, readings, look)

    monkeypatch.setattr(GgufModel, "read", counted)
    stage.run()
    found = {row["id"]: row for row in read_json_lines(Path(layout.confidence("gguf-f16")))}
    assert read == ([asked_before] if asked_before else []) and len(read_json_lines(kept)) == rows
    for row in alone:
        assert found[row["id"]]["probabilities"] == pytest.approx(row["probabilities"], abs=2e-3)
    stage.run()
    assert sum(read) == asked_before


def test_what_a_run_beside_it_knows_is_not_read_again(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two held-out rows more than the run before had: the file is asked for two, and no others are read."""
    stage = Confidence({"gguf-f16": ["export/tiny-f16.gguf"]}, None, 4)
    for name in ("1", "2"):
        shutil.copytree(measured, tmp_path / name)
        write_json(tmp_path / name / layout.stage_config("confidence"), asdict(stage))
    files = layout.answered("gguf-f16"), layout.likelihoods("gguf-f16")
    monkeypatch.chdir(tmp_path / "1")
    for file in files:
        Path(file).write_text("")
        (tmp_path / "2" / file).unlink()
    Ask(**read_json(Path("configs/ask-f16.json"))).run()
    rows = len(read_json_lines(Path(files[0])))
    for file in files:
        Path(file).write_text("".join(Path(file).read_text().splitlines(keepends=True)[:-2]))
    monkeypatch.chdir(tmp_path / "2")
    read: list[int] = []
    of_model = GgufModel.read

    def counted(self: Any, readings: Any, look: Any) -> Any:
        read.append(len(readings))
        return of_model(self, readings, look)

    monkeypatch.setattr(GgufModel, "read", counted)
    Ask(**read_json(Path("configs/ask-f16.json"))).run()
    stage.run()
    assert read[0] == 2 and sum(read) <= 4 < rows  # the two that lack an answer may be others than those that lack this
    assert [len({line["key"] for line in read_json_lines(Path(file))}) for file in files] == [rows, rows]


@pytest.mark.parametrize("kind", ["f16", "adapter"])
def test_it_is_served_as_it_was_measured(measured: Path, kind: str) -> None:
    import llama_cpp

    run: Any = SimpleNamespace(folder=measured)
    told = served.measured(run, kind)
    assert told is not None and served.measured(run, "q4_k_m") is None
    files = read_json(measured / "configs/ask-adapter.json") if kind == "adapter" else {"gguf": "export/tiny-f16.gguf"}
    lora = str(measured / files["adapter"]) if kind == "adapter" else None
    path = str(measured / files["gguf"])
    llama = llama_cpp.Llama(model_path=path, lora_path=lora, n_ctx=256, verbose=False)
    sure = served.Confidence(llama, **told)
    rows = {row["id"]: row for row in read_json_lines(measured / layout.confidence(f"gguf-{kind}"))}
    for prompt in read_json_lines(measured / layout.PROMPTS)[:3]:
        found, row = sure(prompt["ids"]), rows[prompt["id"]]
        assert found["probabilities"] == pytest.approx(row["probabilities"], abs=2e-3)
        assert found["probability"] == pytest.approx(row["confidence"], abs=2e-3)
        assert found["probability"] == found["probabilities"][found["label"]] == max(found["probabilities"].values())


def test_it_stands_beside_the_other_figures(measured: Path) -> None:
    write_json(measured / layout.RECORD, {})  # a folder that is only part of a run
    found = summaries(measured)
    assert {"accuracy", "ece", "answerable"} <= set(found["metrics"]["gguf-f16"])
    assert "can be answered at 95 % accuracy" in found["confidence"]["gguf-f16"]["sentence"]
    assert any(group["title"] == "gguf-adapter is least certain" for group in mistakes(measured))


@pytest.mark.parametrize("branches", [True, False])
def test_the_tree_gives_what_reading_each_label_gives(
    branches: bool, shipped_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GgufModel, "branches", branches)
    with GgufModel(shipped_run.folder / "export/tiny-f16.gguf") as model:
        prompts = [model.tokenize(f"Topic: {text}\n") for text in ("cup goal", "vote law 北京", "match")]
        choices = [model.tokenize(text) for text in ("Sports!", "Sports?", "Politics", "体育")]
        found = list(log_likelihoods(model, prompts, choices))
        for prompt, of_prompt in zip(prompts, found, strict=True):
            for choice, value in zip(choices, of_prompt, strict=True):
                (read,) = model.log_likelihoods([[*prompt, *choice]])
                assert value == pytest.approx(sum(read[len(prompt) - 1 :]), abs=1e-2)


def test_too_many_labels_are_no_classification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(Path(layout.PROMPTS), [{"id": str(n), "label": str(n)} for n in range(60)])
    write_json(Path(layout.TRAIN_ROWS), [])
    Confidence({"gguf-f16": ["x.gguf"]}, None, 4).run()
    assert read_json(Path(layout.summary("confidence"))) == {"metrics": {}, "confidence": {}}
