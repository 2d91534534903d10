"""init --from: a spec that says what somebody's LLaMA-Factory YAML or training folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.project import create, taken_over
from orchestrator.data.hub import is_reference
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_json
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import with_defaults

YAML = """\
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
do_train: true
dataset: mine
dataset_dir: elsewhere
template: qwen
output_dir: saves/x
learning_rate: 1e-4
bf16: true
default_system: 你是新闻助手。
hub_token: secret
group_by_length: true
"""


WEIGHTS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without a tensor."""


def spec_from(source: Path, folder: Path) -> Any:
    create(folder, taken_over(source, folder))
    (folder / "TRAIN.json").write_text("[]")
    return load_project(folder / "spec.yaml").spec


def test_a_yaml_becomes_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(YAML, encoding="utf-8")
    write_json(tmp_path / "elsewhere/dataset_info.json", {"mine": {"file_name": "rows.json"}})
    (tmp_path / "elsewhere/rows.json").write_text("[]")
    spec = spec_from(tmp_path / "train.yaml", tmp_path / "My model")
    assert (spec.name, spec.model.base, spec.model.template) == ("my-model", "hf:Qwen/Qwen2.5-7B-Instruct", "qwen")
    assert spec.model.thinking  # as LLaMA-Factory trains where nobody says otherwise
    assert (spec.data.train, spec.data.eval_fraction) == (str(tmp_path / "elsewhere/rows.json"), 0.25)
    assert spec.data.system == "你是新闻助手。"
    train = with_defaults(spec.train)
    assert (train["learning_rate"], train["bf16"], train["per_device_train_batch_size"]) == (1e-4, True, 8)
    text = (tmp_path / "My model/spec.yaml").read_text(encoding="utf-8")
    assert "# group_by_length: true  (unknown key; it is called train_sampling_strategy: group_by_length)" in text
    assert "output_dir" not in text and "secret" not in text


def test_a_folder_becomes_a_spec(tmp_path: Path) -> None:
    saves = tmp_path / "saves"
    write_json(
        saves / "adapter_config.json",
        {"base_model_name_or_path": "Qwen/Qwen3-8B", "r": 8, "target_modules": ["v_proj", "q_proj"]},
    )
    (saves / "adapter_model.safetensors").write_bytes(WEIGHTS)
    spec = spec_from(saves, tmp_path / "new")
    assert (spec.model.base, spec.model.template) == ("hf:Qwen/Qwen3-8B", "auto")
    assert spec.train["lora_rank"] == 8
    (saves / "training_args.yaml").write_text("template: qwen3\nenable_thinking: false\nval_size: 0.1\n")
    spec = spec_from(saves, tmp_path / "newer")
    assert (spec.model.template, spec.model.thinking, spec.data.eval_fraction) == ("qwen3", False, 0.1)
    (saves / "training_args.yaml").write_text("template: gemma\ntool_format: qwen\n")
    assert spec_from(saves, tmp_path / "newest").model.template == "gemma+qwen"


def test_sets_of_the_hub_are_named_as_a_spec_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {
        "plain": {"hf_hub_url": "llamafactory/alpaca_en"},
        "part": {"hf_hub_url": "HuggingFaceH4/ultrachat_200k", "subset": "default", "split": "train_sft"},
    }
    write_json(tmp_path / "data/dataset_info.json", known)
    (tmp_path / "train.yaml").write_text("dataset: plain,part\ntemplate: qwen\nmodel_name_or_path: Qwen/Qwen3-8B\n")
    spec = spec_from(tmp_path / "train.yaml", tmp_path / "new")
    names = ("hf:llamafactory/alpaca_en:train", "hf:HuggingFaceH4/ultrachat_200k/default:train_sft")
    assert spec.data.train == names and all(map(is_reference, names))


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match=r"list\.yaml holds no arguments"):
        taken_over(tmp_path / "list.yaml", tmp_path / "new")
    with pytest.raises(InputError, match="holds no result of a training"):
        taken_over(tmp_path, tmp_path / "new")
    with pytest.raises(InputError, match="no file"):
        taken_over(tmp_path / "none.yaml", tmp_path / "new")
