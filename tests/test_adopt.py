"""What can be adopted as a run, and what is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from orchestrator.lib.errors import Diverged, InputError
from orchestrator.pipeline import adopt
from orchestrator.serving import webui
from orchestrator.spec.load import Project, load_project
from tests.conftest import write_tree

ARGUMENTS = {
    "stage": "sft", "do_train": True, "finetuning_type": "lora", "template": "smollm2", "dataset": "tiny-train",
    "dataset_dir": "data", "cutoff_len": 128, "learning_rate": 0.02, "output_dir": "saves/tiny/lora/first",
    "trust_remote_code": True, "enable_thinking": True, "packing": False, "max_samples": 100000,
    "preprocessing_num_workers": 16, "swanlab_api_key": "geheim", "plot_loss": True, "save_steps": 100,
}  # fmt: skip


@pytest.fixture
def spec(project: Path) -> Project:
    return load_project(project / "spec.yaml")


@pytest.fixture
def trained(project: Path, tiny_model: Path) -> Path:
    """A folder that looks like a finished training of the board."""
    arguments = yaml.safe_dump({**ARGUMENTS, "model_name_or_path": str(tiny_model)})
    rows = (project / "data/train.json").read_text()
    tree = {
        "saves/tiny/lora/first/training_args.yaml": arguments,
        "saves/tiny/lora/first/trainer_state.json": "{}",
        "saves/tiny/lora/first/all_results.json": "{}",
        "saves/tiny/lora/first/adapter_model.safetensors": "weights",
        "data/dataset_info.json": json.dumps({"tiny-train": {"file_name": "tiny-train.json"}}),
        "data/tiny-train.json": rows,
    }
    return write_tree(project / "webui", tree) / "saves/tiny/lora/first"


def test_the_spec_asks_for_exactly_what_was_trained(trained: Path, spec: Project) -> None:
    changes = adopt.spec_changes(adopt.read(trained), spec)
    assert changes["model.template"] == "smollm2" and not {"model.base", "model.thinking"} & set(changes)
    train = changes["train"]
    assert (train["learning_rate"], train["save_steps"], train["cutoff_len"]) == (0.02, 100, 128)
    # what the board left to LLaMA-Factory is not what we would have done
    silent = ("save_strategy", "save_total_limit", "per_device_train_batch_size")
    assert [train[key] for key in silent] == ["steps", None, 8]
    elsewhere = {"dataset", "output_dir", "template", "do_train", "swanlab_api_key", "max_samples", "enable_thinking"}
    assert not elsewhere & set(train)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_training_that_diverged_is_not_adopted(trained: Path, weight: float) -> None:
    save_file({"lora_A": torch.tensor([1.0, weight])}, trained / "adapter_model.safetensors")
    with pytest.raises(Diverged, match=r"weights that are not finite in adapter_model\.safetensors"):
        adopt.sound(trained)


def test_a_sound_training_is_adopted(trained: Path) -> None:
    save_file({"lora_A": torch.ones(2)}, trained / "adapter_model.safetensors")
    assert adopt.sound(trained) == adopt.read(trained)


def test_a_reasoning_template_and_another_base_are_taken_over(trained: Path, spec: Project) -> None:
    edit(trained, template="qwen3", model_name_or_path="Qwen/Qwen3-0.6B", enable_thinking=None)
    changes = adopt.spec_changes(adopt.read(trained), spec)
    assert changes["model.base"] == "hf:Qwen/Qwen3-0.6B" and changes["model.thinking"] is True


def test_another_tool_format_is_taken_over_and_told_to_the_board(trained: Path, spec: Project) -> None:
    edit(trained, tool_format="qwen")
    assert adopt.spec_changes(adopt.read(trained), spec)["model.template"] == "smollm2+qwen"
    fields = webui.arguments(spec.spec, "smollm2+qwen")
    assert fields["top.template"] == "smollm2"
    assert json.loads(fields["train.extra_args"])["tool_format"] == "qwen"


def test_everything_that_is_missing_is_said(trained: Path) -> None:
    for name in ("all_results.json", "adapter_model.safetensors", "training_args.yaml"):
        (trained / name).unlink()
    with pytest.raises(InputError, match="is no finished training: it has no") as caught:
        adopt.read(trained)
    missing = "all_results.json, adapter_model.safetensors or config.json, training_args.yaml"
    assert caught.value.message.endswith(missing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_name_or_path": "saves/x"}, "went on from the adapter 'saves/x'"),
        ({"dataset": None}, "holds no arguments of a training"),
        ({"model_name_or_path": None}, "holds no arguments of a training"),
    ],
)
def test_arguments_that_cannot_be_adopted(changes: dict[str, Any], message: str, trained: Path) -> None:
    edit(trained, **changes)
    with pytest.raises(InputError, match=message):
        adopt.read(trained)


@pytest.mark.parametrize("written", [b"a: [1", "标题: 1".encode("gbk")])
def test_arguments_that_cannot_be_read_are_said(written: bytes, trained: Path) -> None:
    (trained / "mine.yaml").write_bytes(written)
    with pytest.raises(InputError, match=r"cannot read mine\.yaml"):
        adopt.read(trained, trained / "mine.yaml")


def test_the_rows_it_was_trained_on_are_found_above_it(trained: Path) -> None:
    assert adopt.dataset(adopt.read(trained)) == trained.parents[3] / "data/tiny-train.json"
    edit(trained, dataset="tiny-train,identity")
    with pytest.raises(InputError, match="'tiny-train,identity', which is no data set in 'data'"):
        adopt.dataset(adopt.read(trained))


def edit(trained: Path, **changes: Any) -> None:
    file = trained / "training_args.yaml"
    values = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))


# ---- the board's folder


def test_load_arguments_fills_in_what_the_spec_says(spec: Project) -> None:
    fields = webui.arguments(spec.spec, "smollm2")
    assert fields["train.training_stage"] == "Supervised Fine-Tuning"
    assert (fields["train.learning_rate"], fields["train.batch_size"]) == ("0.02", 4)
    assert (fields["train.compute_type"], fields["train.dataset"]) == ("fp32", ["tiny-train"])
    extra = json.loads(fields["train.extra_args"])
    assert extra["seed"] == 42 and not {"learning_rate", "stage", "report_to"} & set(extra)
