"""Damaged models and a training that loses its numbers, with the real tools."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.lib import process
from orchestrator.lib.errors import Diverged, InputError, StageError
from orchestrator.lib.files import read_json_lines
from orchestrator.models.finite import require_finite
from orchestrator.models.gguf import GgufModel
from orchestrator.models.sources import require_whole_weights
from orchestrator.runs.store import Run
from tests.conftest import make_project, run_tool

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "cut in its header": lambda content: content[:100],
    "empty": lambda content: b"",
    "of another kind": lambda content: b"PK\3\4" + content[4:],
    "full of zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_gguf_is_named_and_how_to_make_it_anew(
    shipped_run: Run, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    whole = next(shipped_run.folder.glob("export/*-f16.gguf"))
    file = tmp_path / "新闻-f16.gguf"
    file.write_bytes(damage(whole.read_bytes()))
    with pytest.raises(StageError, match=f"cannot load {file.name}: it is damaged") as raised:
        GgufModel(file)
    assert "orchestrator export --force export" in raised.value.hint


def test_one_process_may_load_gguf_after_gguf(shipped_run: Run) -> None:
    """llama.cpp goes on calling the function that it logs to when the model that set it is long gone."""
    file = next(shipped_run.folder.glob("export/*-f16.gguf"))
    code = (
        "import gc, pathlib, sys\n"
        "from orchestrator.models.gguf import GgufModel\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "for quiet in (True, False, True):\n"
        "    with GgufModel(file, quiet=quiet) as model:\n"
        "        print(len(model.tokenize('新闻 news')) > 0)\n"
        "    del model\n"
        "    gc.collect()\n"
    )
    assert process.output([sys.executable, "-c", code, str(file)], timeout=120).split() == ["True"] * 3


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights_of_a_base_model_are_named(
    tiny_model: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    content = (tiny_model / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    require_whole_weights(tmp_path, "model")
    (tmp_path / "model.safetensors").write_bytes(damage(content))
    with pytest.raises(InputError, match=r"model\.safetensors of 'model' is damaged"):
        require_whole_weights(tmp_path, "model")


@pytest.mark.slow
def test_a_training_too_short_to_log_a_loss_diverges_too(tmp_path: Path, tiny_model: Path) -> None:
    """24 rows once, six steps: LLaMA-Factory ends with 0, and its log holds not one loss."""
    project = make_project(tmp_path, tiny_model)
    changes = ("train.learning_rate=1e30", "train.num_train_epochs=1", "train.logging_steps=10")
    done = run_tool(("train", *(word for change in changes for word in ("--set", change))), project)
    assert done.code == 4
    assert "error: training diverged: the mean loss over all steps is nan" in done.stderr
    assert "Lower train.learning_rate." in done.stderr
    (folder,) = project.glob("runs/2*")
    entries = read_json_lines(folder / "train/trainer_log.jsonl")
    assert entries and not any("loss" in entry for entry in entries)
    (folder / "train/all_results.json").write_text('{"train_loss": 1.0}', encoding="utf-8")  # were it hidden there
    with pytest.raises(Diverged, match="weights that are not finite in adapter_model"):
        require_finite(folder / "train")


@pytest.mark.nightly
def test_a_training_that_loses_its_numbers_is_ended(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path, tiny_model)
    done = run_tool(("train", "--set", "train.learning_rate=1e30", "--set", "train.num_train_epochs=500"), project)
    assert done.code == 4
    assert "error: training diverged: loss became nan at step" in done.stderr
    assert "Lower train.learning_rate." in done.stderr
    assert len((next(project.glob("runs/2*")) / "train/trainer_log.jsonl").read_text().splitlines()) < 1000  # of 3000
