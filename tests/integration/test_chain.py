"""The whole chain on real parts and a tiny model: what is run, what is not run again, and what an edit changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result, make_project, rows, run_tool


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Result]:
    """A project whose whole chain was run once."""
    project = make_project(tmp_path_factory.mktemp("chain"), tiny_model)
    return project, run_tool(("run",), project)


@pytest.fixture
def project(finished: tuple[Path, Result]) -> Iterator[Path]:
    """The finished project; its spec is put back afterwards."""
    folder, done = finished
    assert done.code == 0, done.stderr
    text = (folder / "spec.yaml").read_text()
    yield folder
    (folder / "spec.yaml").write_text(text)


def only_run(project: Path) -> dict[str, Any]:
    files = sorted((project / "runs").glob("*/run.json"))
    assert len(files) == 1
    return json.loads(files[0].read_text())


def edit(project: Path, old: str, new: str) -> None:
    text = (project / "spec.yaml").read_text()
    assert old in text
    (project / "spec.yaml").write_text(text.replace(old, new))


BASE_STAGES = ("prompted", "predict-base", "predict-base-prompted")
MAY_BE_EMPTY = (".errors.jsonl", ".disagreements.jsonl")
"""A perfect artifact leaves none of these rows."""


def started(record: dict[str, Any]) -> dict[str, str]:
    return {stage: entry["started_at"] + str(entry["seconds"]) for stage, entry in record["stages"].items()}


def test_every_stage_is_recorded_with_its_outputs(project: Path) -> None:
    record = only_run(project)
    assert record["status"] == "completed"
    assert set(record["stages"]) == {
        "prepare", "train", "prompted", "predict-base", "predict-base-prompted", "predict-tuned", "score", "baselines",
        "merge", "template", "convert", "modelfile",
        "quantise-q8_0", "ask-f16", "ask-q8_0", "read-tuned", "diverge-f16", "diverge-q8_0", "confidence", "judge",
        "general",
    }  # fmt: skip
    for stage in record["stages"].values():
        assert stage["status"] == "completed" and stage["exit_code"] == 0
        for output in stage["outputs"]:
            assert len(output["sha256"]) == 64
            assert output["bytes"] > 0 or output["path"].endswith(MAY_BE_EMPTY)


def test_every_artifact_has_figures_with_intervals(project: Path, finished: tuple[Path, Result]) -> None:
    metrics = only_run(project)["metrics"]
    assert list(metrics) == ["majority", "base", "base-prompted", "tuned", "gguf-f16", "gguf-q8_0"]
    for figures in metrics.values():
        assert figures["n"] == 12
        assert 0 <= figures["accuracy"]["low"] <= figures["accuracy"]["value"] <= figures["accuracy"]["high"] <= 100
    assert metrics["gguf-f16"]["agreement_with_tuned"]["value"] >= 90
    for artifact in metrics:
        assert artifact in finished[1].stdout


def test_the_gguf_was_asked_the_tokens_of_training(project: Path) -> None:
    folder = next((project / "runs").glob("*/run.json")).parent
    parity = json.loads((folder / "evaluation/gguf-f16.parity.json").read_text())
    assert parity["compared"] == parity["equal_prompts"] == parity["rows"] == 12


def test_lineage_names_everything_by_hash(project: Path) -> None:
    lineage = only_run(project)["lineage"]
    assert all(lineage[key] for key in ("spec", "train_data", "eval_data", "adapter", "merged_model", "base_model"))
    assert set(lineage["gguf"]) == {"export/tiny-f16.gguf", "export/tiny-q8_0.gguf"}


def test_the_gguf_carries_its_origin(project: Path) -> None:
    from gguf import GGUFReader

    folder = next((project / "runs").glob("*/run.json")).parent
    fields = GGUFReader(str(folder / "export/tiny-q8_0.gguf")).fields
    assert fields["general.name"].contents() == "tiny"
    assert fields["general.dataset.0.name"].contents() == "data/train.json"
    assert "tiny-llama" in fields["general.base_model.0.name"].contents()


def test_modelfile_serves_the_training_template(project: Path) -> None:
    text = next((project / "runs").glob("*/export/Modelfile")).read_text()
    assert "FROM ./tiny-q8_0.gguf" in text
    assert "<|im_start|>user\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER temperature 0" in text


def test_nothing_is_done_twice(project: Path) -> None:
    before = only_run(project)
    again = run_tool(("run",), project)
    assert again.code == 0 and "gguf-q8_0" in again.stdout
    assert only_run(project) == before


def test_plan_says_why(project: Path) -> None:
    plan = run_tool(("plan", "--json", "--set", "export.gguf=[f16, q6_k]"), project).json
    why = {step["stage"]: step["why"] for step in plan["steps"] if not step["up_to_date"]}
    assert why["quantise-q6_k"] == "not done yet"
    assert "configuration" in why["modelfile"]
    assert "convert" not in why
    assert "train" not in why and "predict-tuned" not in why and "merge" not in why


@pytest.mark.slow
def test_editing_export_never_retrains(project: Path) -> None:
    before = started(only_run(project))
    edit(project, "gguf: [f16, q8_0]", "gguf: [f16, q8_0, q6_k]")
    done = run_tool(("export",), project)
    assert done.code == 0, done.stderr
    after = started(only_run(project))
    for stage in ("prepare", "train", "predict-base", "predict-tuned", "score", "merge", "convert", "ask-f16"):
        assert after[stage] == before[stage]
    assert "ask-q6_k" in after


@pytest.mark.slow
def test_editing_the_learning_rate_trains_a_new_run_and_reuses_the_rest(project: Path) -> None:
    edit(project, "learning_rate: 2.0e-2", "learning_rate: 1.0e-2")
    done = run_tool(("evaluate", "--json"), project)
    assert done.code == 0, done.stderr
    stages = done.json["stages"]
    assert len(list((project / "runs").glob("*/run.json"))) == 2
    assert {stage for stage, entry in stages.items() if "reused_from" in entry} == {"prepare", *BASE_STAGES}
    assert "convert" not in stages
    adapters = {path.read_bytes() for path in (project / "runs").glob("*/train/adapter_model.safetensors")}
    assert len(adapters) == 2


def test_a_changed_output_is_made_again(finished: tuple[Path, Result]) -> None:
    project, _ = finished
    run = sorted((project / "runs").glob("*/export/tiny-f16.gguf"))[0].parents[1]
    (run / "evaluation/gguf-f16.jsonl").write_text("{}\n")
    plan = run_tool(("plan", "--json"), project).json
    why = {step["stage"]: step["why"] for step in plan["steps"] if not step["up_to_date"]}
    assert why["ask-f16"] == "an output is missing or changed"
    assert "judge" in why and "train" not in why


@pytest.mark.slow
def test_more_held_out_rows_repeat_no_training(project: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(project, tmp_path / "moved", symlinks=True))
    there = set(moved.glob("runs/*/run.json"))
    first = min(there)
    (moved / "data/eval.json").write_text(json.dumps(rows(14, first=100)))
    done = run_tool(("run",), moved)
    assert done.code == 0, done.stderr
    (new,) = set(moved.glob("runs/*/run.json")) - there
    record, before = json.loads(new.read_text()), json.loads(first.read_text())
    reused = {stage for stage, entry in record["stages"].items() if "reused_from" in entry}
    assert reused >= {"train", "merge", "convert", "quantise-q8_0"}
    assert not reused & {"prepare", "predict-tuned", "ask-f16", "diverge-f16", "judge"}
    assert record["metrics"]["gguf-q8_0"]["n"] == 14
    assert record["lineage"]["gguf"].items() <= before["lineage"]["gguf"].items()
    for kind in ("f16", "q8_0"):
        assert "12 of 14 rows were answered before" in (new.parent / f"logs/ask-{kind}.log").read_text()
