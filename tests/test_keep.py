"""The best checkpoint: which rows it is chosen by, which one it is, and what is used from then on."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.data import assemble
from orchestrator.data.assemble import MOST_VALIDATION, Wanted
from orchestrator.evaluation.checkpoints import best, measured, summarise
from orchestrator.evaluation.rows import Row, write_records
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json, read_json_lines, write_json, write_text
from orchestrator.models.llamacpp import checkout, version
from orchestrator.pipeline.scheduler import take_over
from orchestrator.report.run_page import curves
from orchestrator.report.table import artifact_table
from orchestrator.runs import store
from orchestrator.spec.load import load_project
from orchestrator.spec.reference import json_schema, reference
from orchestrator.spec.sections import Data
from orchestrator.stages.keep import Keep, checkpoints, take
from tests.conftest import rows
from tests.shipped_run import example, learn
from tests.test_stages import ROOT, steps_of

BEST = "train.keep=accuracy"
LABELS = ("体育", "国际")
TAUGHT = ("Sports", "国际", "Politics")


def answered(right: int, of: int = 20) -> list[Row]:
    """Rows of which the first are right."""
    return [Row(str(n), "标题", LABELS[n % 2], LABELS[n % 2] if n < right else LABELS[(n + 1) % 2]) for n in range(of)]


def curve(*right: int) -> list[Any]:
    return [
        measured(f"train/checkpoint-{10 * n}", 10 * n, n + 0.001, answered(of), "classification")
        for n, of in enumerate(right, 1)
    ]


@pytest.mark.parametrize(
    ("right", "kept", "said"),
    [
        ((10, 18, 15), 20, "kept epoch 2, the best of 3 checkpoints: accuracy 90.0"),
        ((10, 15, 18), 30, "kept epoch 3, the last and the best of 3 checkpoints: accuracy 90.0"),
        ((18, 18, 15), 10, "kept epoch 1, the best of 3 checkpoints"),
        ((15,), 10, "kept epoch 1, the only checkpoint that there is: accuracy 75.0"),
    ],
)
def test_the_best_is_kept_and_of_equals_the_earliest(right: tuple[int, ...], kept: int, said: str) -> None:
    found = curve(*right)
    told = summarise(list(reversed(found)), "classification")
    assert best(found).step == kept and told["kept"] == f"train/checkpoint-{kept}"
    assert told["sentence"].startswith(said) and "20 validation rows" in told["sentence"]
    assert [entry["value"] for entry in told["curve"]] == [100 * of / 20 for of in right]


def test_what_the_rows_cannot_tell_apart_is_said() -> None:
    close, far = (summarise(curve(*right), "classification")["sentence"] for right in ((18, 15), (20, 5)))
    assert close.endswith("; epoch 2 has 75.0, which so few rows cannot tell apart")
    assert far.endswith("; epoch 2 has 25.0")


def test_the_curve_is_a_chart_of_the_page() -> None:
    told = summarise(curve(10, 18, 15), "classification")
    chart = curves([], {"keep": told})["Checkpoints"]
    assert chart is not None and chart.title == "Checkpoints: accuracy against epoch"
    assert "Checkpoints" not in curves([])


def test_it_is_said_before_anything_is_measured() -> None:
    text = io.StringIO()
    artifact_table({"keep": summarise(curve(10, 18, 15), "classification")}, Console(file=text, width=200))
    assert text.getvalue().strip().startswith("kept epoch 2, the best of 3 checkpoints")


# ---- what the spec says


def test_the_stages_after_it_take_what_it_kept() -> None:
    usual, steps = steps_of("spec.yaml"), steps_of("spec.yaml", BEST)
    assert "keep" not in usual and steps["keep"].needs == ("prepare", "train")
    assert "save_total_limit: 2" in usual["train"].files["configs/train.yaml"]
    assert "save_total_limit" not in (text := steps["train"].files["configs/train.yaml"]) and "keep:" not in text
    for stage in ("predict-tuned", "merge", "read-tuned", "general"):
        assert "keep" in steps[stage].needs and "train" not in steps[stage].needs
        assert any('"kept"' in file or ": kept\n" in file for file in steps[stage].files.values())
    assert layout.VALIDATION in steps["prepare"].expects
    assert json.loads(steps["prepare"].files["configs/prepare.json"])["validation"] == "auto"


def test_a_limit_of_the_users_own_stays() -> None:
    text = steps_of("spec.yaml", BEST, "train.save_total_limit=3")["train"].files["configs/train.yaml"]
    assert "save_total_limit: 3" in text


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("train.keep=best",), "train.keep: expected one of last, accuracy"),
        ((BEST, "train.stage=pt"), "stage pt teaches none; leave it out"),
        ((BEST, "train.finetuning_type=full", "train.loraplus_lr_ratio=null"), "'full' makes no LoRA adapter; leave"),
        (("data.validation=0.2",), "data.validation: is asked to choose a checkpoint only; say train.keep: accuracy"),
        ((BEST, "data.validation=none.json"), "data.validation: no file 'none.json'"),
        ((BEST, "data.validation=1.5"), "data.validation: expected"),
        (("train.kep=last",), "did you mean keep?"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as raised:
        load_project(ROOT / "spec.yaml", sets)
    assert said in raised.value.message


def test_schema_and_reference_know_it() -> None:
    assert json_schema()["properties"]["train"]["properties"]["keep"]["enum"] == ["last", "accuracy"]
    assert "| `train.keep` | `last` |" in reference()


# ---- rows


def sets(folder: Path, validation: Any, train: int = 100) -> assemble.Sets:
    for name, found in {"train": rows(train), "eval": rows(10, 500)}.items():
        write_json(folder / f"{name}.json", found)
    data = Data(train="train.json", eval="eval.json", validation=validation, accept=("duplicate_near", "leakage_near"))
    return assemble.assemble(Wanted(folder, data))


def asked(of: Any) -> set[str]:
    return {row.prompt for row in of}


def test_a_share_is_taken_from_the_training_rows(tmp_path: Path) -> None:
    found = sets(tmp_path, 0.2)
    assert len(found.train) + len(found.validation) == 100 and 10 <= len(found.validation) <= 25
    assert not asked(found.train) & asked(found.validation)
    assert not asked(found.eval) & asked(found.validation)
    assert asked(sets(tmp_path, 0.2).validation) == asked(found.validation)


def test_auto_is_a_tenth(tmp_path: Path) -> None:
    assert 5 <= len(sets(tmp_path, "auto").validation) <= 15
    assert MOST_VALIDATION / 10_000 < 0.1


def test_rows_of_a_file_that_are_held_out_or_trained_on_are_left_out_and_named(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", [*rows(3), *rows(2, 500), *rows(5, 900)])
    found = sets(tmp_path, "v.json")
    assert asked(found.validation) == {row["conversations"][0]["value"] for row in rows(5, 900)}
    [left] = [one for one in found.findings if one.kind == "validation_overlap"]
    assert left.message == "5 of 10 validation rows are training or held-out rows too, and are left out"
    assert left.rows == tuple(("v.json", row) for row in (1, 2, 3, 4, 5))
    assert len(found.train) == 100


def test_a_file_without_a_row_of_its_own_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", rows(5))
    with pytest.raises(InputError, match=r"all 5 rows of 'v\.json' are training or held-out rows too"):
        sets(tmp_path, "v.json")


# ---- folders


def checkpoint(folder: Path, step: int) -> Path:
    write_text(folder / "adapter_model.safetensors", f"weights {step}")
    write_json(folder / "adapter_config.json", {"r": 8})
    write_json(folder / "trainer_state.json", {"global_step": step, "epoch": step / 10})
    write_text(folder / "tokenizer.json", "{}")
    write_text(folder / "optimizer.pt", "large")
    return folder


def test_checkpoints_are_those_that_are_whole_and_each_step_once(tmp_path: Path) -> None:
    train = checkpoint(tmp_path / "train", 100)
    for step in (100, 20, 3):
        checkpoint(train / f"checkpoint-{step}", step)
    (train / "checkpoint-20/trainer_state.json").unlink()
    checkpoint(train / "checkpoint-3-copy", 4)
    assert [folder.name for folder, _ in checkpoints(train)] == ["checkpoint-3", "checkpoint-100"]
    checkpoint(train, 110)
    assert [folder.name for folder, _ in checkpoints(train)] == ["checkpoint-3", "checkpoint-100", "train"]


def test_what_was_kept_is_what_is_used_from_then_on(tmp_path: Path) -> None:
    checkpoint(tmp_path / layout.TRAINED, 100)
    assert layout.trained(tmp_path) == layout.TRAINED
    write_text(tmp_path / layout.KEPT / "old.bin", "")
    take(checkpoint(tmp_path / "train/checkpoint-20", 20), tmp_path / layout.KEPT)
    names = {path.name for path in (tmp_path / layout.KEPT).iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}
    assert layout.trained(tmp_path) == layout.KEPT, "from then on"
    assert (tmp_path / layout.KEPT / "adapter_model.safetensors").read_text() == "weights 20"


def test_a_training_that_is_taken_over_brings_the_checkpoints_to_choose_from(tmp_path: Path) -> None:
    step = steps_of("spec.yaml", BEST)["train"]
    donor, run = (store.create(tmp_path, "news") for _ in range(2))
    checkpoint(donor.folder / "train/checkpoint-20", 20)
    donor.begin(step, "print", step.argv)
    donor.end("train", "completed", 1.0, 0, [])
    take_over(step, run, donor, "print")
    left = {path.name for path in (run.folder / "train/checkpoint-20").iterdir()}
    assert left == {"adapter_model.safetensors", "adapter_config.json", "trainer_state.json", "tokenizer.json"}
    take_over(steps_of("spec.yaml")["train"], usual := store.create(tmp_path, "news"), donor, "print")
    assert not (usual.folder / "train/checkpoint-20").exists()


@pytest.mark.slow
def test_each_checkpoint_is_asked_and_the_best_one_kept(tiny_model: Path, tmp_path: Path) -> None:
    """The first has learnt the rows, the second is as the base model is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    questions = [("1", "Cup final tonight", "Sports"), ("2", "国际 会议", "国际"), ("3", "New law", "Politics")]
    asked = [
        {"id": at, "prompt": prompt, "label": label, "ids": list(tokenizer.encode(f"<|im_start|>user\n{prompt}"))}
        for at, prompt, label in questions
    ]
    write_records(tmp_path / layout.VALIDATION, asked)
    write_json(tmp_path / layout.SERVING, {"stop": ["<|im_end|>"]})
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(tiny_model)),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True),
    )
    for step in (2, 1):
        folder = tmp_path / f"train/checkpoint-{step}"
        if step == 1:
            learn(adapted, [example(row, tokenizer) for row in asked])
        adapted.save_pretrained(str(folder))
        write_json(folder / "trainer_state.json", {"global_step": step, "epoch": float(step)})
    converter = checkout(None)
    assert converter is not None
    (tmp_path / "evaluation").mkdir()
    stage = Keep(str(tiny_model), "tiny", str(converter), version(converter), "classification", list(TAUGHT), 8)
    with contextlib.chdir(tmp_path):
        stage.run()
    told = read_json(tmp_path / layout.summary("keep"))["keep"]
    assert [entry["value"] > 50 for entry in told["curve"]] == [True, False]
    assert told["kept"] == "train/checkpoint-1" and told["sentence"].startswith("kept epoch 1, the best of 2")
    kept, first = (tmp_path / f"{name}/adapter_model.safetensors" for name in ("kept", "train/checkpoint-1"))
    assert kept.read_bytes() == first.read_bytes()
    assert len(read_json_lines(tmp_path / "evaluation/validation.jsonl")) == 6
