"""The memory forecast: its parts by hand, its sums against measured and published figures, and how it is told."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import BASE, CASES, PUBLISHED, forecast
from orchestrator.lib import layout
from orchestrator.machine import environment
from orchestrator.models.memory import (
    CUDA_CONTEXT,
    PROCESS,
    MemoryInput,
    layer_activations,
    merge,
    predict,
    train,
    trainable,
)
from orchestrator.models.shape import Model, read_model
from orchestrator.models.sources import resolve
from orchestrator.pipeline.estimate import EstimateInput, MemoryEstimate, lines, memory_estimate, of_spec
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import DEFAULTS
from tests.conftest import Result

ROOT = Path(__file__).parent.parent
MEASURED: dict[str, int] = json.loads((ROOT / "benchmarks" / "memory.json").read_text())
MIB = 2**20
# One layer of width 8 with an MLP of 16, two heads, 100 tokens of vocabulary, in float32.
SHAPES = {"q_proj": (8, 8), "k_proj": (4, 8), "gate_proj": (16, 8), "down_proj": (8, 16)}
MATRICES = tuple((name, *shape) for name, shape in SHAPES.items())
LINEAR = sum(outputs * inputs for outputs, inputs in SHAPES.values())
COUNT = LINEAR + 100 * 8
SMALL = Model(4 * COUNT, COUNT, MATRICES, 8, 16, 1, 2, 8, 100)
ARGUMENTS: dict[str, Any] = {**DEFAULTS, "per_device_train_batch_size": 2}


def parts(model: Model = SMALL, devices: int = 0, zero: int = 0, **chosen: Any) -> dict[str, int]:
    """What training is made of, for rows of 10 tokens, two at a time."""
    found = train(model, MemoryInput({**ARGUMENTS, **chosen}, 10, 4, devices, zero))
    return {name: size for name, size in (found.gpu or found.host).items() if name not in ("process", "CUDA")}


# ---- parts


def test_training_an_adapter_in_float32() -> None:
    rank8 = 8 * (16 + 12 + 24 + 24)
    layer = 20 * 4 * (8 * 8 + 4 * 16)
    assert parts() == {
        "weights": 4 * COUNT,
        "trained weights": 4 * rank8,
        "gradients": 4 * rank8,
        "optimizer": 8 * rank8,
        "activations": 20 * 4 * 8 + max(0, layer - 20 * 100 * 24),
        "logits": 20 * 100 * 24,
    }
    assert parts(disable_gradient_checkpointing=True)["activations"] == layer


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"lora_rank": 4}, 4 * (16 + 12 + 24 + 24)),
        ({"lora_target": "q_proj,down_proj"}, 8 * (16 + 24)),
        ({"lora_target": ["k_proj"]}, 8 * 12),
        ({"finetuning_type": "full"}, COUNT),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, LINEAR),
    ],
)
def test_what_is_trained(chosen: dict[str, Any], count: int) -> None:
    assert trainable(SMALL, {**ARGUMENTS, **chosen}) == count


@pytest.mark.parametrize(
    ("chosen", "bytes_each"),
    [
        ({"bf16": True}, 18),  # float32 weights, gradients and moments, and autocast's copy
        ({"pure_bf16": True}, 8),
        ({"bf16": True, "optim": "adamw_bnb_8bit"}, 12),
    ],
)
def test_full_training_costs_so_many_bytes_a_parameter(chosen: dict[str, Any], bytes_each: int) -> None:
    half = replace(SMALL, weights=2 * COUNT)
    found = parts(half, finetuning_type="full", **chosen)
    assert sum(found[name] for name in ("weights", "trained weights", "gradients", "optimizer")) == bytes_each * COUNT


@pytest.mark.parametrize(
    ("zero", "divided"),
    [(0, []), (1, ["optimizer"]), (2, ["optimizer", "gradients"]), (3, ["optimizer", "gradients", "weights"])],
)
def test_zero_divides_among_devices(zero: int, divided: list[str]) -> None:
    alone, shared = parts(devices=1), parts(devices=4, zero=zero)
    assert all(shared[name] == alone[name] // 4 for name in divided)
    assert all(shared[name] == alone[name] for name in {"activations", "logits"})
    assert [name for name in ("optimizer", "gradients", "weights") if shared[name] < alone[name]] == divided


def test_quantised_weights_leave_the_embeddings_alone() -> None:
    half = replace(SMALL, weights=2 * COUNT)
    assert parts(half, 1, quantization_bit=8)["weights"] == LINEAR + 2 * 800
    assert parts(half, 1, quantization_bit=4)["weights"] == int(0.516 * LINEAR + 2 * 800)


def test_what_else_changes_the_passing() -> None:
    assert parts(enable_liger_kernel=True)["logits"] == 0
    assert parts(stage="dpo")["logits"] == 2 * parts()["logits"]
    eager = parts(flash_attn="disabled", disable_gradient_checkpointing=True)["activations"]
    assert eager - parts(disable_gradient_checkpointing=True)["activations"] == 3 * 4 * 2 * 20 * 10
    assert layer_activations(SMALL, ARGUMENTS, 20) == 2 * layer_activations(SMALL, ARGUMENTS, 10)


def test_predict_and_merge() -> None:
    found = predict(SMALL, MemoryInput({**DEFAULTS, "per_device_eval_batch_size": 3}, 10, 4))
    assert found.host == {
        "process": PROCESS,
        "weights": 4 * COUNT,
        "keys and values": 4 * 3 * 14 * 8,
        "activations": 4 * 3 * 14 * (4 * 8 + 3 * 16),
        "logits": 3 * 4 * 3 * 100,
    }
    assert merge(SMALL).host == {"process": PROCESS, "weights": 4 * COUNT}


def test_a_gpu_has_its_own_sum() -> None:
    found = train(SMALL, MemoryInput(ARGUMENTS, 10, devices=1))
    assert found.gpu["CUDA"] == CUDA_CONTEXT
    assert "weights" not in found.host


@pytest.mark.parametrize(
    ("chosen", "tokens", "devices", "lower"),
    [
        ({"disable_gradient_checkpointing": True}, 10, 0, "train.disable_gradient_checkpointing"),
        ({}, 1000, 0, "train.per_device_train_batch_size"),
        ({"per_device_train_batch_size": 1}, 1000, 0, "train.cutoff_len"),
        ({"finetuning_type": "full"}, 1, 0, "train.finetuning_type"),
        ({"lora_rank": 1}, 1, 1, "train.quantization_bit"),
        ({"lora_rank": 1, "per_device_train_batch_size": 1}, 1, 0, "model.base"),
    ],
)
def test_the_setting_to_lower(chosen: dict[str, Any], tokens: int, devices: int, lower: str) -> None:
    big = replace(SMALL, weights=4 * 10_000, parameters=10_000)
    assert train(big, MemoryInput({**ARGUMENTS, **chosen}, tokens, devices=devices)).lower.startswith(lower)


# ---- sums


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_within_a_fifth_of_what_was_measured(case: Any, builtin_model: Path) -> None:
    model = read_model(builtin_model)
    assert model is not None
    assert sum(forecast(case, model).host.values()) == pytest.approx(MEASURED[case.name], rel=0.2)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[1]} {row[4]}")
def test_within_a_quarter_of_what_was_published(row: Any) -> None:
    _, _, model, tokens, chosen, gigabytes = row
    setting = MemoryInput({**DEFAULTS, "per_device_train_batch_size": 1, **chosen}, tokens, devices=1)
    assert sum(train(model, setting).gpu.values()) / 1e9 == pytest.approx(gigabytes, rel=0.25)


def test_train_and_predict_were_measured_at_three_batch_sizes() -> None:
    sizes = {stage: {case.batch for case in CASES if case.stage == stage} for stage in ("train", "predict")}
    assert {stage: len(found) for stage, found in sizes.items()} == {"train": 3, "predict": 3}


# ---- reading


def write_model(folder: Path, config: dict[str, Any], files: dict[str, dict[str, list[int]]]) -> Path:
    """A model folder with headers as safetensors has them, and holes for weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, shapes in files.items():
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        place = 0
        for tensor, shape in shapes.items():
            size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
            place += size
        text = json.dumps(header).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


CONFIG = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 100,
}
LAYER = "model.layers.0.self_attn.q_proj.weight"


def test_headers_of_all_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    shards = {"a.safetensors": {"model.embed_tokens.weight": [100, 8]}, "b.safetensors": {LAYER: [8, 8], "norm": [8]}}
    folder = write_model(tmp_path, {**CONFIG, "num_key_value_heads": 1}, shards)
    assert read_model(folder) == Model(2 * 872, 872, (("q_proj", 8, 8),), 8, 16, 1, 2, 2 * 4, 100)


def test_an_index_names_the_files_that_count(tmp_path: Path) -> None:
    files = {"model-1.safetensors": {LAYER: [8, 8]}, "consolidated.safetensors": {LAYER: [8, 8]}}
    folder = write_model(tmp_path, CONFIG, files)
    index = {"weight_map": {LAYER: "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_model(folder)
    assert found is not None and (found.parameters, found.cached) == (64, 16)


def test_a_multimodal_configuration_holds_one_for_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path, {"text_config": CONFIG}, {"model.safetensors": {LAYER: [8, 8]}})
    assert read_model(folder) is not None


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", struct.pack("<Q", 9) + b"{"])
def test_a_damaged_file_is_no_traceback(content: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path, CONFIG, {})
    (folder / "model.safetensors").write_bytes(content)
    assert read_model(folder) is None


@pytest.mark.parametrize("config", [[], "text", {**CONFIG, "hidden_size": "8"}])
def test_a_damaged_configuration_is_no_traceback(config: Any, tmp_path: Path) -> None:
    assert read_model(write_model(tmp_path, config, {"model.safetensors": {LAYER: [8, 8]}})) is None


def test_an_unknown_architecture_has_no_forecast(tmp_path: Path) -> None:
    folder = write_model(tmp_path, {"d_model": 8}, {"model.safetensors": {LAYER: [8, 8]}})
    assert read_model(folder) is None
    spec = load_project(ROOT / "spec.yaml").spec
    assert memory_estimate(EstimateInput(spec, folder)) is None
    assert memory_estimate(EstimateInput(spec, None)) is None
    assert "no forecast" in lines(None)[0]


# ---- telling


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", list)
    monkeypatch.setattr(environment, "free_main_memory", lambda: 64 * 2**30)
    monkeypatch.setattr(environment, "free_memory", lambda: 64 * 2**30)


@pytest.mark.usefixtures("plenty")
def test_rows_count_as_prepare_counted_them(tmp_path: Path, project: Path, tiny_model: Path) -> None:
    spec = load_project(project / "spec.yaml").spec
    before = memory_estimate(EstimateInput(spec, tiny_model, tmp_path))
    assert before is not None and (before.tokens, before.measured) == (128, False)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / layout.SERVING).write_text('{"tokens": {"longest": 40}}')
    after = memory_estimate(EstimateInput(spec, tiny_model, tmp_path))
    assert after is not None and (after.tokens, after.measured) == (40, True)


@pytest.mark.usefixtures("plenty")
def test_speed_auto_is_part_of_the_forecast(project: Path, tiny_model: Path) -> None:
    def activations(*overrides: str) -> int:
        found = memory_estimate(EstimateInput(load_project(project / "spec.yaml", overrides).spec, tiny_model))
        assert found is not None
        return found.forecasts[0].host["activations"]

    kept = "train.disable_gradient_checkpointing=true"
    assert activations("speed=auto") == activations("speed=off", kept)


def test_too_much_is_a_warning_that_names_the_setting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", list)
    monkeypatch.setattr(environment, "free_main_memory", lambda: 1200 * MIB)
    monkeypatch.setattr(environment, "free_memory", lambda: 1200 * MIB)
    told = lines(of_spec(load_project(project / "spec.yaml").spec, project))
    assert told[0].startswith("memory: train 1.")
    assert "cutoff_len" in told[1]
    assert [line.partition(";")[2] for line in told if line.startswith("warning: train")] == [
        " lower train.per_device_train_batch_size (and raise gradient_accumulation_steps as much)"
    ]


def test_a_gpu_and_main_memory_are_told_apart(project: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: [{"name": "H100"}])
    monkeypatch.setattr(environment, "free_memory", lambda: 79 * 2**30)
    monkeypatch.setattr(environment, "free_main_memory", lambda: 100 * 2**30)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = memory_estimate(EstimateInput(load_project(project / "spec.yaml").spec, tiny_model))
    assert isinstance(found, MemoryEstimate)
    assert found.free == {"host": 100 * 2**30, "gpu": 79 * 2**30}
    first = lines(found)[0]
    assert "merge 1.1 GiB in main memory" in first
    assert first.endswith("79.0 free")


@pytest.mark.parametrize("command", ["check", "plan", "doctor"])
def test_commands_tell_it(command: str, orchestrator: Callable[..., Result], project: Path) -> None:
    done = orchestrator(command, cwd=project)
    assert "memory: train " in done.stdout, done.stderr
    answer = orchestrator(command, "--json", cwd=project).json["memory"]
    assert [forecast["stage"] for forecast in answer["forecasts"]] == ["train", "predict", "merge"]


def test_the_document_shows_the_figures_of_the_formulas(builtin_model: Path) -> None:
    from benchmarks.memory import measured_table, published_table

    document = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    assert resolve(BASE) == builtin_model
    for line in [*measured_table(ROOT / "benchmarks" / "memory.json"), *published_table()]:
        assert line in document
